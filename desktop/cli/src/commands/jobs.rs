//! `lull jobs`: the newest jobs.

use std::process::ExitCode;

use clap::ValueEnum;
use lull_shared::{
    jobs::{Job, JobFilter, JobState},
    time::{Clock as _, SystemClock, Timestamp},
};

use super::find_job;
use crate::{
    array::{ended, name},
    config,
    output::{Output, Tone},
    table::{self, Cell, ago, cell, span, state},
};

const HELP: &str = "\
Examples:
  lull jobs
  lull jobs --status failed --limit 100
  lull jobs --array 4f2a91c0 --status failed
  lull jobs --json | jq -r '.jobs[].jobId'";

/// List jobs, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Only jobs in this state
    #[arg(long, value_enum)]
    status: Option<State>,

    /// The jobs of this array that PCs have taken, by their number
    #[arg(long, value_name = "JOB")]
    array: Option<String>,

    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

/// A state, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Pending,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Running => Self::Running,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let filter = JobFilter {
        status: args.status.map(JobState::from),
        array_id: match &args.array {
            Some(array) => Some(find_job(&client, array).await?),
            None => None,
        },
        limit: Some(args.limit),
        ..JobFilter::default()
    };
    let list = client.list_jobs(&filter).await?;
    if output.json {
        output.value(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    if list.jobs.is_empty() && args.array.is_some() {
        output.note("no PC has taken such a job of the array yet");
        return Ok(ExitCode::SUCCESS);
    }
    if list.jobs.is_empty() {
        output.note("no jobs yet: `lull run -- 'uname -a'` runs the first one");
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.now();
    let rows: Vec<_> = list.jobs.iter().map(|job| row(job, now)).collect();
    table::print(output, &["ID", "STATE", "NAME", "PC", "SUBMITTED", "TOOK", "EXIT"], &rows)?;
    if list.next.is_some() && args.array.is_some() {
        output.note(&format!("the first {} of them; --limit shows more", list.jobs.len()));
    } else if list.next.is_some() {
        let counts = list.counts;
        let all =
            counts.pending + counts.running + counts.completed + counts.failed + counts.cancelled;
        output.note(&format!("{} of {all} jobs; --limit shows more", list.jobs.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The job's state; of an array with how many of its jobs have ended.
fn state_of(job: &Job) -> Cell {
    let (word, tone) = state(job.status);
    match job.array {
        Some(counts) => (format!("{word} {}/{}", ended(counts), counts.count), tone),
        None if job.held => (format!("{word}, held"), tone),
        None => (word, tone),
    }
}

fn row(job: &Job, now: Timestamp) -> Vec<Cell> {
    let took = job.started_at.map(|began| span(job.completed_at.unwrap_or(now).since(began)));
    let exit = job.exit_code.map(|code| code.to_string()).unwrap_or_default();
    let exit_tone =
        if job.exit_code.is_some_and(|code| code != 0) { Tone::Bad } else { Tone::Quiet };
    vec![
        (name(job), Tone::Strong),
        state_of(job),
        cell(job.name.as_str()),
        cell(job.hostname.as_deref().unwrap_or_default()),
        cell(ago(now, job.created_at)),
        cell(took.unwrap_or_default()),
        (exit, exit_tone),
    ]
}
