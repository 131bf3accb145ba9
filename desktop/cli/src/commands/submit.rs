//! `lull submit`: submits a job and leaves it to itself.

use std::process::ExitCode;

use super::{INTERRUPTED, unless_interrupted};
use crate::{config, output::Output, submission::Submission};

const HELP: &str = "\
Prints the job's id. Each argument after `--` is one line; with --shell none, what follows
`--` is one program with its arguments, exactly as given.

Examples:
  lull submit --dir my-project --output 'out/**' -- 'make' 'make test'
  id=$(lull submit -- 'sleep 60; date')
  lull output -f $id && lull download $id
  lull submit --after $id --on-worker-lost fail -- './publish.sh'
  lull submit --os unix --min-cpus 4 --min-memory 16GiB --label gpu --max-queue 1h -- './train.sh'
  lull submit --count 100 --priority -10 --retries 3 --timeout 10m -- './render $LULL_INDEX'
  lull submit --items-from files.txt --output '*.mp3' -- 'lame $LULL_ITEM'
  lull submit --shell none -- python3 -c 'print(1 + 1)'";

/// Submit a job and return at once
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    submission: Submission,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let submitting = args.submission.submit(&client, output);
    let Some(job) = unless_interrupted(submitting).await? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if output.json {
        output.value(&job)?;
    } else {
        output.line(&job.job_id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
