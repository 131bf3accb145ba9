//! Whole lifecycles a second: submitted, claimed by a waiting worker, reported, each on disk before its reply.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use lull_bench::simulated::SimulatedWorker;

use super::{Bench, Plan, a_job, bare::Bare, times};
use crate::figures::{line, rate};

/// Requests of one lifecycle: create, get-job, submit-result.
const REQUESTS: u32 = 3;

pub(super) async fn run(bench: &Bench, bare: &Bare, plan: &Plan) -> anyhow::Result<()> {
    let took = lifecycles(bench, plan).await?;
    let handled = bare.requests(plan.lifecycles * REQUESTS, plan.at_once * 2).await?;
    let workers = bench.workers.len();
    let ours = rate(plan.lifecycles, took);
    let theirs = rate(plan.lifecycles * REQUESTS, handled);
    line(&format!("whole lifecycles, {workers} simulated workers"), &format!("{ours:8.0} /s"));
    line("a bare axum handler, the same requests", &format!("{theirs:8.0} /s"));
    line(
        &format!("lifecycles × {REQUESTS} requests / the bare handler's"),
        &times(ours * f64::from(REQUESTS) / theirs),
    );
    Ok(())
}

async fn lifecycles(bench: &Bench, plan: &Plan) -> anyhow::Result<Duration> {
    let done = AtomicBool::new(false);
    let done = &done;
    let job = a_job();
    let job = &job;
    let begun = Instant::now();
    let submitted = stream::iter(0..plan.lifecycles)
        .map(|_| async move { bench.submitter.create_job(job).await.map(drop) })
        .buffer_unordered(plan.at_once)
        .try_collect::<()>();
    let working = future::try_join_all(bench.workers.iter().map(|worker| work(worker, done)));
    let watching = async {
        submitted.await?;
        while bench.ended().await? < u64::from(plan.lifecycles) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        done.store(true, Ordering::Relaxed);
        let took = begun.elapsed();
        // Wakes the workers that wait, so that they see it.
        for _ in &bench.workers {
            bench.submitter.create_job(job).await?;
        }
        anyhow::Ok(took)
    };
    let (took, _) = future::try_join(watching, working).await?;
    Ok(took)
}

async fn work(worker: &SimulatedWorker, done: &AtomicBool) -> anyhow::Result<()> {
    while !done.load(Ordering::Relaxed) {
        for job in worker.claim(20, 1).await? {
            worker.client.submit_result(&SimulatedWorker::success_of(&job)).await?;
        }
    }
    Ok(())
}
