//! `lull status`: one job, with its attempts.

use std::process::ExitCode;

use lull_shared::{
    jobs::{Attempt, Job},
    time::{Clock as _, SystemClock, Timestamp},
};

use super::find_job;
use crate::{
    config,
    output::{Output, Tone, clean},
    table::{ago, size, span, state},
};

const HELP: &str = "\
Examples:
  lull status 4f2a91c0
  lull status --json 4f2a91c0 | jq .exitCode";

/// Show one job: where it is, its attempts, its files
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The job: its id, or the last digits of it
    job: String,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let job = client.job_status(find_job(&client, &args.job).await?).await?;
    if output.json {
        output.value(&job)?;
    } else {
        describe(&job, output)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(job: &Job, output: &Output) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let row = |name: &str, text: &str| {
        output.line(&format!("{}  {text}", output.paint(Tone::Quiet, &format!("{name:>9}"))))
    };
    let (word, tone) = state(job.status);
    row("job", &job.job_id.to_string())?;
    row("name", &clean(&job.name))?;
    row("state", &output.paint(tone, &word))?;
    if job.cancel_requested && !job.status.is_terminal() {
        row("", "cancel requested")?;
    }
    if let Some(code) = job.exit_code {
        row("exit code", &code.to_string())?;
    }
    if let Some(why) = &job.error_message {
        row("because", &clean(why))?;
    }
    for (number, line) in job.command.lines().enumerate() {
        row(if number == 0 { "command" } else { "" }, &clean(line))?;
    }
    if let Some(file) = &job.filename {
        row("input", &clean(file))?;
    }
    row("submitted", &format!("{} by {}", ago(now, job.created_at), clean(&job.submitted_by)))?;
    if let Some(ended) = job.completed_at {
        row("ended", &ago(now, ended))?;
    }
    for attempt in &job.attempts {
        row(&format!("attempt {}", attempt.attempt), &describe_attempt(attempt, now))?;
    }
    for artifact in &job.artifacts {
        row("file", &format!("{}, {}", clean(&artifact.name), size(artifact.size_bytes)))?;
    }
    Ok(())
}

fn describe_attempt(attempt: &Attempt, now: Timestamp) -> String {
    let ran = span(attempt.ended_at.unwrap_or(now).since(attempt.started_at));
    let mut text = format!("on {}, {ran}", clean(&attempt.hostname));
    match attempt.ending {
        Some(ending) => text.push_str(&format!(", {}", ending.name())),
        None => text.push_str(", running"),
    }
    if let Some(why) = &attempt.error_message {
        text.push_str(&format!(": {}", clean(why)));
    }
    text
}
