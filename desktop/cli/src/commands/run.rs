//! `lull run`: submits a job, shows its output, brings its files home, ends as it ended.

use std::{path::PathBuf, process::ExitCode};

use lull_shared::{
    client::Client,
    jobs::{Job, JobState},
};
use serde::Serialize;

use super::{INTERRUPTED, unless_interrupted};
use crate::{
    array, config,
    follow::{Followed, Interrupt, follow},
    output::{Output, clean},
    results,
    submission::Submission,
    table::short,
};

/// The exit code when there is no exit code of the command's own, as `timeout` and `docker run` have it.
pub(crate) const COULD_NOT_RUN: u8 = 125;

const HELP: &str = "\
Each argument after `--` is one line. The lines run in order, in one folder, until one fails.
With --shell none, what follows `--` is one program with its arguments, exactly as given.

Examples:
  lull run -- 'uname -a'
  lull run --dir my-project --output 'out/**' -- 'make' 'make test'
  lull run --zip frames.zip --output '*.png' --into frames -- 'python3 render.py --frames 1-10'
  lull run --env LEVEL=9 --name packing -- 'tar c . | gzip -$LEVEL | wc -c'
  lull run --shell none -- python3 -c 'print(1 + 1)'
  lull run --min-memory 16GiB --label gpu --timeout 2h --retries 2 -- './train.sh'
  ls *.wav | lull run --dir . --items-from - --output '*.mp3' -- 'lame $LULL_ITEM'

Exit code: the command's own; 125 when it could not be run, 130 when it was cancelled.
Of an array: 0 when all its jobs completed, 1 when one failed, 130 when it was cancelled.
Ctrl-C cancels the job; pressed again it leaves without waiting for the end.";

/// Run a command on an idle PC: submit, follow, bring the files home
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    submission: Submission,

    /// Folder for the files that come home; files of the same name are replaced; `lull-results/ID` unless told
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    into: Option<PathBuf>,

    /// Pass output on as it is, also to a terminal
    #[arg(long)]
    raw: bool,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "submitted")]
struct Submitted {
    job: Job,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let submitting = args.submission.submit(&client, output);
    let Some(job) = unless_interrupted(submitting).await? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let (job_id, is_array) = (job.job_id, job.array.is_some());
    if output.json {
        output.value(&Submitted { job })?;
    } else if output.is_watched() {
        output.note(&format!("job {}", short(job_id)));
    }
    if is_array {
        return run_array(&args, &client, &array::follow(&client, output, job_id).await?, output)
            .await;
    }
    let job = match follow(&client, output, job_id, args.raw, Interrupt::Cancels).await? {
        Followed::Ended(job) => job,
        Followed::Left => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let fetching = results::fetch(&client, output, &job, args.into.as_deref());
    if unless_interrupted(fetching).await?.is_none() {
        output.note(&format!("left; `lull download {}` brings the files home", short(job_id)));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if !output.json {
        tell_end(&job, output);
    }
    Ok(ExitCode::from(exit_code(&job)))
}

/// What follows the end of an array.
async fn run_array(
    args: &Args,
    client: &Client,
    followed: &Followed,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let Followed::Ended(job) = followed else { return Ok(ExitCode::from(INTERRUPTED)) };
    let fetching = results::fetch_array(client, output, job, args.into.as_deref());
    if unless_interrupted(fetching).await?.is_none() {
        let id = short(job.job_id);
        output.note(&format!("left; `lull download {id}` brings the files home"));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if !output.json {
        array::tell_end(client, output, job).await?;
    }
    Ok(ExitCode::from(exit_code(job)))
}

/// Says how the job ended where the exit code alone does not.
fn tell_end(job: &Job, output: &Output) {
    match (job.status, &job.error_message) {
        (JobState::Cancelled, _) => output.note("the job was cancelled"),
        (JobState::Failed, Some(why)) => output.note(&format!("the job failed: {}", clean(why))),
        (JobState::Failed, None) if output.is_watched() => {
            output.note(&format!("the command ended with exit code {}", exit_code(job)));
        }
        (JobState::Failed | JobState::Pending | JobState::Running | JobState::Completed, _) => {}
    }
}

/// The code to end with. A code that does not fit in a byte (Windows) stays a failure.
fn exit_code(job: &Job) -> u8 {
    match (job.status, job.exit_code) {
        (JobState::Completed, _) => 0,
        (JobState::Cancelled, _) => INTERRUPTED,
        (_, None) if job.array.is_some() => 1,
        (_, Some(code)) => u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(1),
        (_, None) => COULD_NOT_RUN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lull_ends_as_the_job_ended() {
        check("completed", Some(0), 0);
        check("failed", Some(7), 7);
        check("failed", Some(127), 127);
        check("failed", Some(-1_073_741_819), 1);
        check("failed", Some(256), 1);
        check("failed", None, 125);
        check("cancelled", None, 130);
        check("cancelled", Some(0), 130);
    }

    #[track_caller]
    fn check(status: &str, exit: Option<i32>, expected: u8) {
        let job: Job = serde_json::from_value(serde_json::json!({
            "jobId": "01980000-0000-7000-8000-000000000000", "status": status, "name": "n",
            "workerId": null, "command": "c", "filename": null, "fileUrl": null,
            "exitCode": exit, "errorMessage": null, "createdAt": 0, "startedAt": null,
            "completedAt": null, "attempt": 1, "submittedBy": "me",
        }))
        .unwrap();
        assert_eq!(exit_code(&job), expected, "{status} {exit:?}");
    }
}
