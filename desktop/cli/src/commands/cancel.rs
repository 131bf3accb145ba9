//! `lull cancel`: ends jobs.

use std::process::ExitCode;

use lull_shared::jobs::JobState;

use super::find_job;
use crate::{config, output::Output, table::short};

const HELP: &str = "\
Examples:
  lull cancel 4f2a91c0
  lull jobs --status pending --json | jq -r '.jobs[].jobId' | xargs lull cancel";

/// Cancel jobs
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
        let job = client.cancel_job(find_job(&client, job).await?).await?;
        let id = short(job.job_id);
        if output.json {
            output.value(&job)?;
        } else if job.status == JobState::Cancelled {
            output.line(&format!("{id} is cancelled"))?;
        } else {
            output.line(&format!("{id} is being cancelled"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
