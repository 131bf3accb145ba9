//! `lull events`: what changes in the pool, as it changes.

use std::{collections::HashMap, process::ExitCode};

use futures_util::StreamExt as _;
use lull_shared::{client::Client, events::PoolEvent, ids::WorkerId, workers::Worker};

use super::{find_job, workers};
use crate::{
    config,
    output::{Output, Tone, clean},
    table::{short, state},
};

/// Changes that are shown together: the PCs are asked for once for all of them.
const TOGETHER: usize = 256;

const HELP: &str = "\
Goes on until Ctrl-C; a lost connection is made again and what was missed comes then.

Examples:
  lull events
  lull events --job 4f2a91c0
  lull events --json | jq -r 'select(.status == \"failed\") | .jobId'";

/// Follow what changes: jobs and PCs
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Only this job, or this array and its jobs
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let only = match &args.job {
        Some(job) => Some(find_job(&client, job).await?),
        None => None,
    };
    let told = output.clone();
    let events = client.follow_pool_telling(move |error| {
        if told.is_watched() {
            told.note(&format!("{error}; trying again"));
        }
    });
    let mut together = events.ready_chunks(TOGETHER);
    while let Some(events) = together.next().await {
        let mut pcs = None;
        for event in events {
            let event = event?;
            let about = match &event {
                PoolEvent::Job { job_id, array_id, .. } => [Some(*job_id), *array_id],
                PoolEvent::Reset | PoolEvent::Worker { .. } => [None, None],
            };
            if only.is_some() && !about.contains(&only) {
                continue;
            }
            if output.json {
                output.value(&event)?;
            } else {
                show(&event, &client, &mut pcs, output).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints one change; asks for the PCs when it is about the first of one.
async fn show(
    event: &PoolEvent,
    client: &Client,
    pcs: &mut Option<HashMap<WorkerId, Worker>>,
    output: &Output,
) -> anyhow::Result<()> {
    match event {
        PoolEvent::Reset => {
            output.note("from here on; `lull jobs` and `lull workers` show what is");
            Ok(())
        }
        PoolEvent::Job { job_id, status, attempt, array_id } => {
            let (word, tone) = state(*status);
            let mut line = format!("job {}  {}", short(*job_id), output.paint(tone, &word));
            if *attempt > 1 {
                line.push_str(&format!("  attempt {attempt}"));
            }
            if let Some(array) = array_id {
                let of = format!("  of array {}", short(*array));
                line.push_str(&output.paint(Tone::Quiet, &of));
            }
            output.line(&line)
        }
        PoolEvent::Worker { worker_id } => {
            let listed = match pcs {
                Some(listed) => listed,
                None => {
                    let list = client.list_workers().await?.workers;
                    pcs.insert(list.into_iter().map(|pc| (pc.worker_id, pc)).collect())
                }
            };
            let Some(pc) = listed.get(worker_id) else { return Ok(()) };
            let (words, tone) = workers::state(pc);
            output.line(&format!("PC {}  {}", clean(&pc.hostname), output.paint(tone, &words)))
        }
    }
}
