//! `lull resubmit`: submits ended jobs again.

use std::process::ExitCode;

use super::find_job;
use crate::{config, output::Output};

const HELP: &str = "\
Prints the ids of the new jobs. They ask for what the old ones asked for; they wait for no other job and are not held.

Examples:
  lull resubmit 4f2a91c0
  lull output -f $(lull resubmit 4f2a91c0)";

/// Submit ended jobs again
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
        let job = client.resubmit_job(find_job(&client, job).await?).await?;
        if output.json {
            output.value(&job)?;
        } else {
            output.line(&job.job_id.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
