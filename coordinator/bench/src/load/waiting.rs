//! Thousands of workers that wait for a job, each with its own request: what one costs, and how fast a job finds one.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lull_bench::simulated::SimulatedWorker;
use lull_shared::client::{Client, Trust};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Bench, a_job};
use crate::figures::{Samples, line};

/// Workers that join at once.
const JOINING: usize = 16;
/// How many jobs are handed out to the waiting, one after the other.
const HANDED_OUT: u32 = 500;
/// How long one request waits, in seconds.
const WAIT_SECS: u32 = 60;

pub(super) async fn run(bench: &Bench, workers: u32) -> anyhow::Result<()> {
    if workers == 0 {
        return Ok(());
    }
    let coordinator = bench.pool.coordinator_seen();
    let code = bench.pool.join_code_for(workers)?;
    let stranger = Client::new(&[&bench.pool.http_url], Trust::System)?;
    let joined: Vec<SimulatedWorker> = stream::iter(0..workers)
        .map(|_| SimulatedWorker::join_by(&stranger, &code))
        .buffered(JOINING)
        .try_collect()
        .await?;
    let before = coordinator.memory_bytes()?;

    let (tell, mut told) = mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for worker in joined {
        let tell = tell.clone();
        waiting.spawn(async move { wait_and_tell(&worker, &tell).await });
    }
    // Each of them is a socket of the coordinator's.
    while u64::try_from(coordinator.open_files()?)? < u64::from(workers) {
        anyhow::ensure!(waiting.try_join_next().is_none(), "a waiting worker gave up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The last ones have connected; their requests are on the way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = coordinator.memory_bytes()?;
    let each = after.saturating_sub(before) / u64::from(workers);
    line(&format!("{workers} workers that wait, memory of each"), &kib(each));
    line("  the coordinator's memory with none of them waiting", &kib(before));

    let mut handed_out = Samples::default();
    for _ in 0..HANDED_OUT {
        let begun = Instant::now();
        bench.submitter.create_job(&a_job()).await?;
        let arrived: Instant =
            told.recv().await.ok_or_else(|| anyhow::anyhow!("the workers are gone"))?;
        handed_out.push(arrived.saturating_duration_since(begun));
    }
    handed_out.print("  from submission to the arrival at one of them");
    Ok(())
}

/// Waits for a job, says when it came, reports it, and waits again.
async fn wait_and_tell(
    worker: &SimulatedWorker,
    tell: &mpsc::UnboundedSender<Instant>,
) -> anyhow::Result<()> {
    loop {
        let jobs = worker.claim(WAIT_SECS, 1).await?;
        let arrived = Instant::now();
        for job in jobs {
            worker.client.submit_result(&SimulatedWorker::success_of(&job)).await?;
            if tell.send(arrived).is_err() {
                return Ok(());
            }
        }
    }
}

fn kib(bytes: u64) -> String {
    format!("{:8} KiB", bytes / 1024)
}

/// Lets this process, and what it starts, open as many files as the system allows: each waiting worker is a socket.
#[cfg(unix)]
pub(super) fn raise_file_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(super) fn raise_file_limit() -> anyhow::Result<()> {
    Ok(())
}
