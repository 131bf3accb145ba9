//! `lull status`: one job, with its attempts.

use std::{process::ExitCode, time::Duration};

use lull_shared::{
    jobs::{Attempt, Job, JobState, Network, Requirements},
    time::{Clock as _, SystemClock, Timestamp},
};

use super::find_job;
use crate::{
    array, config,
    output::{Output, Tone, clean},
    table::{ago, short, size, span, state},
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
        // An array waits for as long as one of its jobs does.
        if job.status == JobState::Pending || job.array.is_some_and(|counts| counts.pending > 0) {
            let explanation = client.explain_job(job.job_id).await?;
            for (number, sentence) in explanation.sentences.iter().enumerate() {
                row(output, if number == 0 { "waits" } else { "" }, &clean(sentence))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(job: &Job, output: &Output) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let row = |name: &str, text: &str| row(output, name, text);
    let (word, tone) = state(job.status);
    row("job", &job.job_id.to_string())?;
    row("name", &clean(&job.name))?;
    row("state", &output.paint(tone, &word))?;
    if let Some(counts) = job.array {
        row("array", &format!("{} jobs: {}", counts.count, array::words(counts)))?;
    }
    if let (Some(of), Some(index)) = (job.array_id, job.index) {
        row("of array", &format!("{of}, job {index}"))?;
    }
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
    for (name, text) in terms(job) {
        row(name, &text)?;
    }
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

/// One line of the description.
fn row(output: &Output, name: &str, text: &str) -> anyhow::Result<()> {
    output.line(&format!("{}  {text}", output.paint(Tone::Quiet, &format!("{name:>9}"))))
}

/// What was asked for beyond the usual, by the names of the options.
fn terms(job: &Job) -> Vec<(&'static str, String)> {
    let asked = &job.requirements;
    let secs = |secs: u32| span(Duration::from_secs(secs.into()));
    let mut needs: Vec<String> = Vec::new();
    needs.extend(asked.os.clone());
    needs.extend(asked.arch.clone());
    if asked.min_cpus > 1 {
        needs.push(format!("{} CPUs", asked.min_cpus));
    }
    if asked.min_memory_bytes > 0 {
        needs.push(format!("{} of memory", size(asked.min_memory_bytes)));
    }
    needs.extend(asked.labels.iter().map(|label| format!("label {label}")));
    if asked.min_sandbox != Requirements::default().min_sandbox {
        needs.push(format!("isolation {}", asked.min_sandbox.name()));
    }
    if asked.network == Network::Internet {
        needs.push("the internet".to_owned());
    }
    let before: Vec<String> = job.after.iter().map(|job| short(*job)).collect();
    [
        ("needs", needs.join(", ")),
        ("priority", some(job.priority != 0, || job.priority.to_string())),
        ("retries", some(job.retries > 0, || job.retries.to_string())),
        ("timeout", job.timeout_secs.map(secs).unwrap_or_default()),
        ("max queue", job.max_queue_secs.map(secs).unwrap_or_default()),
        ("after", before.join(", ")),
        ("repeats", job.resubmitted_from.map(short).unwrap_or_default()),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .collect()
}

fn some(is: bool, text: impl FnOnce() -> String) -> String {
    if is { text() } else { String::new() }
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
