//! `lull hold`: keeps waiting jobs waiting.

use std::process::ExitCode;

use super::find_job;
use crate::{config, output::Output, table::short};

const HELP: &str = "\
Examples:
  lull hold 4f2a91c0
  lull jobs --status pending --json | jq -r '.jobs[].jobId' | xargs lull hold";

/// Keep waiting jobs from running until `lull release`
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The jobs: their ids, or the last digits of them
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    for job in &args.jobs {
        let job = client.hold_job(find_job(&client, job).await?).await?;
        if output.json {
            output.value(&job)?;
        } else {
            output.line(&format!("{} is held", short(job.job_id)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
