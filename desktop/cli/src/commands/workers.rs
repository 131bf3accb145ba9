//! `lull workers`: the PCs of the pool.

use std::process::ExitCode;

use lull_shared::{
    time::{Clock as _, SystemClock, Timestamp},
    workers::{SuspendReason, Worker, WorkerState},
};

use crate::{
    config,
    output::{Output, Tone},
    table::{self, Cell, ago, cell, size},
};

const HELP: &str = "\
Examples:
  lull workers
  lull workers --json | jq -r '.workers[] | select(.status == \"ready\") | .hostname'";

/// List the PCs of the pool and what they are doing
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {}

pub(super) async fn run(_args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let list = config::client()?.list_workers().await?;
    if output.json {
        output.value(&list)?;
        return Ok(ExitCode::SUCCESS);
    }
    if list.workers.is_empty() {
        output
            .note("no PCs yet: `lull-coordinator join-code` prints the code with which one joins");
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemClock.now();
    let rows: Vec<_> = list.workers.iter().map(|worker| row(worker, now)).collect();
    let headings = ["PC", "STATE", "JOBS", "CPUS", "MEMORY", "SYSTEM", "SANDBOX", "HEARD OF"];
    table::print(output, &headings, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(worker: &Worker, now: Timestamp) -> Vec<Cell> {
    vec![
        (worker.hostname.clone(), Tone::Strong),
        state(worker),
        cell(format!("{} of {}", worker.running.len(), worker.slots)),
        cell(worker.cpu_count.to_string()),
        cell(size(worker.memory_bytes)),
        cell(format!("{} {}", worker.os, worker.arch)),
        cell(worker.sandbox_level.name()),
        cell(ago(now, worker.last_heartbeat)),
    ]
}

fn state(worker: &Worker) -> Cell {
    let (word, tone) = match worker.status {
        WorkerState::Ready => ("ready", Tone::Good),
        WorkerState::Working => ("working", Tone::Busy),
        WorkerState::Suspended => ("suspended", Tone::Quiet),
        WorkerState::Draining => ("draining", Tone::Quiet),
        WorkerState::Offline => ("offline", Tone::Bad),
        WorkerState::Unknown => ("unknown", Tone::Quiet),
    };
    let why = match worker.reason {
        Some(SuspendReason::PausedByOwner) => "paused by its owner",
        Some(SuspendReason::OwnerActive) => "its owner is there",
        Some(SuspendReason::CpuBusy) => "its processor is busy",
        Some(SuspendReason::OnBattery) => "on battery",
        Some(SuspendReason::IdleTimeUnknown) => "nobody knows if its owner is there",
        Some(SuspendReason::Unknown) | None => return (word.to_owned(), tone),
    };
    (format!("{word}: {why}"), tone)
}
