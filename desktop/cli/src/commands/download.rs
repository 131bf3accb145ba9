//! `lull download`: brings a job's files home.

use std::{path::PathBuf, process::ExitCode};

use super::{INTERRUPTED, find_job, unless_interrupted};
use crate::{config, output::Output, results};

const HELP: &str = "\
Examples:
  lull download 4f2a91c0
  lull download --into results 4f2a91c0";

/// Bring the files of a job home
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The job: its id, or the last digits of it
    job: String,

    /// Folder for the files; files of the same name are replaced; `lull-results/ID` unless told
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let job = client.job_status(find_job(&client, &args.job).await?).await?;
    if job.array.is_some() {
        let fetching = results::fetch_array(&client, output, &job, args.into.as_deref());
        let fetched = unless_interrupted(fetching).await?;
        return Ok(fetched.map_or(ExitCode::from(INTERRUPTED), |()| ExitCode::SUCCESS));
    }
    if job.artifacts.is_empty() && !output.json {
        output.note(if !job.status.is_terminal() {
            "the job has not ended yet: `lull output -f` follows it"
        } else if job.outputs.is_empty() {
            "the job brought no files home: name them with --output when you submit it"
        } else {
            "the job wrote no file that its --output patterns name"
        });
    }
    let fetching = results::fetch(&client, output, &job, args.into.as_deref());
    let fetched = unless_interrupted(fetching).await?;
    Ok(fetched.map_or(ExitCode::from(INTERRUPTED), |()| ExitCode::SUCCESS))
}
