//! `lull workers`: the PCs of the pool, and what an administrator does with them.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use lull_shared::{
    client::Client,
    time::{Clock as _, SystemClock, Timestamp},
    workers::{SuspendReason, Worker, WorkerState},
};

use crate::{
    config,
    output::{Output, Tone, clean},
    table::{self, Cell, ago, cell, size},
};

const HELP: &str = "\
Examples:
  lull workers
  lull workers drain lab-pc-07
  lull workers --json | jq -r '.workers[] | select(.status == \"ready\") | .hostname'";

/// List the PCs of the pool and what they are doing; drain and release them
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

/// What to do with PCs. Needs the role admin.
#[derive(Debug, Subcommand)]
enum Action {
    /// Let PCs end what they run and take nothing new
    #[command(after_help = "Example:\n  lull workers drain lab-pc-07")]
    Drain(Pcs),
    /// Let drained PCs take jobs again
    #[command(after_help = "Example:\n  lull workers undrain lab-pc-07")]
    Undrain(Pcs),
    /// Let PCs that were set aside, because everybody's jobs failed there, take jobs again
    #[command(after_help = "Example:\n  lull workers release lab-pc-07")]
    Release(Pcs),
}

#[derive(Debug, clap::Args)]
struct Pcs {
    /// The PCs: their names or ids
    #[arg(required = true, value_name = "PC")]
    pcs: Vec<String>,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let list = client.list_workers().await?;
    if let Some(action) = &args.action {
        act(&client, action, &list.workers, output).await?;
        return Ok(ExitCode::SUCCESS);
    }
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
    let headings =
        ["PC", "STATE", "JOBS", "CPUS", "MEMORY", "SYSTEM", "SANDBOX", "LABELS", "HEARD OF"];
    table::print(output, &headings, &rows)?;
    if list.workers.iter().any(|worker| worker.sick_since.is_some()) {
        output.note(
            "a PC is set aside when the jobs of three users in a row failed there: look at it, then \
             `lull workers release PC` lets it take jobs again",
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn act(
    client: &Client,
    action: &Action,
    all: &[Worker],
    output: &Output,
) -> anyhow::Result<()> {
    let (Action::Drain(named) | Action::Undrain(named) | Action::Release(named)) = action;
    for name in &named.pcs {
        let id = find(all, name)?.worker_id;
        let (worker, word) = match action {
            Action::Drain(_) => {
                (client.drain_worker(id, true).await?, "ends what it runs and takes nothing new")
            }
            Action::Undrain(_) => (client.drain_worker(id, false).await?, "takes jobs again"),
            Action::Release(_) => (client.release_worker(id).await?, "takes jobs again"),
        };
        if output.json {
            output.value(&worker)?;
        } else {
            output.line(&format!("{} {word}", clean(&worker.hostname)))?;
        }
    }
    Ok(())
}

/// The PC a person means: by its name or its id.
fn find<'a>(all: &'a [Worker], text: &str) -> anyhow::Result<&'a Worker> {
    if let Some(worker) = all.iter().find(|worker| worker.worker_id.to_string() == text) {
        return Ok(worker);
    }
    let found: Vec<_> =
        all.iter().filter(|worker| worker.hostname.eq_ignore_ascii_case(text)).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => bail!("no PC of the pool is called {text}: `lull workers` shows them"),
        [..] => {
            let ids: Vec<_> = found.iter().map(|worker| worker.worker_id.to_string()).collect();
            bail!("{} PCs are called {text}: name the one by its id: {}", ids.len(), ids.join(", "))
        }
    }
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
        cell(worker.labels.iter().map(String::as_str).collect::<Vec<_>>().join(" ")),
        cell(ago(now, worker.last_heartbeat)),
    ]
}

/// What a PC is doing, and why it takes no jobs if so.
pub(super) fn state(worker: &Worker) -> Cell {
    if worker.status != WorkerState::Offline && worker.sick_since.is_some() {
        return ("set aside: everybody's jobs fail there".to_owned(), Tone::Bad);
    }
    if worker.status != WorkerState::Offline && worker.draining {
        return match worker.running.len() {
            0 => ("drained".to_owned(), Tone::Quiet),
            jobs => (format!("draining: {jobs} still running"), Tone::Quiet),
        };
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(hostname: &str) -> Worker {
        serde_json::from_value(serde_json::json!({
            "workerId": lull_shared::ids::WorkerId::generate(), "hostname": hostname, "os": "linux",
            "arch": "x86_64", "cpuCount": 4, "memoryBytes": 1, "version": "1", "status": "ready",
            "lastHeartbeat": 0, "registeredAt": 0, "slots": 1, "sandboxLevel": "l2",
        }))
        .unwrap()
    }

    #[test]
    fn a_pc_is_named_by_its_name_or_its_id() {
        let all = [worker("one"), worker("Two"), worker("twin"), worker("twin")];
        assert_eq!(find(&all, "ONE").unwrap(), &all[0]);
        assert_eq!(find(&all, "two").unwrap(), &all[1]);
        assert_eq!(find(&all, &all[3].worker_id.to_string()).unwrap(), &all[3]);
        let two = find(&all, "twin").unwrap_err().to_string();
        assert!(two.contains(&all[2].worker_id.to_string()), "{two}");
        assert!(find(&all, "three").is_err());
    }

    #[test]
    fn a_pc_that_takes_no_jobs_says_why() {
        let mut pc = worker("one");
        assert_eq!(state(&pc).0, "ready");
        pc.draining = true;
        assert_eq!(state(&pc).0, "drained");
        pc.sick_since = Some(Timestamp::from_millis(1));
        assert!(state(&pc).0.starts_with("set aside"));
        pc.status = WorkerState::Offline;
        assert_eq!(state(&pc).0, "offline");
    }
}
