//! A worker like a laptop that sleeps: it claims a job, is not heard of until somebody else has it, and then delivers
//! what it has all the same. The fence must refuse that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use lull_shared::{
    client::Client,
    jobs::Assignment,
    output::{AppendQuery, Stream},
    problem::ProblemKind,
};

use super::{Fault, moment};
use crate::simulated::SimulatedWorker;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Slept {
    pub(super) refused: u32,
    pub(super) faults: Vec<Fault>,
}

/// Claims the first job there is.
pub(super) async fn first_claim(worker: &SimulatedWorker) -> Vec<Assignment> {
    loop {
        match worker.claim(2, 1).await {
            Ok(jobs) if !jobs.is_empty() => return jobs,
            _ => moment().await,
        }
    }
}

/// Sleeps over the leases of the `first` jobs and then of what it claims, so many in all, or until told to stop.
pub(super) async fn run(
    worker: SimulatedWorker,
    direct: Client,
    first: Vec<Assignment>,
    times: u32,
    lease: Duration,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Slept> {
    let mut slept = Slept::default();
    let mut left = times;
    let mut claimed = Ok(first);
    while left > 0 {
        let Ok(jobs) = claimed else {
            moment().await;
            claimed = worker.claim(2, 1).await;
            continue;
        };
        for job in jobs {
            if !has_been_given_to_another(&direct, &job, lease * 6, &stop).await {
                continue;
            }
            left -= 1;
            for delivered in deliver(&worker, &job).await {
                match delivered {
                    Err(ProblemKind::LeaseLost) => slept.refused += 1,
                    Err(kind) => {
                        slept.faults.push(Fault::Late { job: job.job_id, kind: kind.name() });
                    }
                    Ok(()) => slept.faults.push(Fault::Unfenced { job: job.job_id }),
                }
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        claimed = worker.claim(2, 1).await;
    }
    Ok(slept)
}

/// Waits until a newer attempt of the job has begun.
async fn has_been_given_to_another(
    direct: &Client,
    job: &Assignment,
    limit: Duration,
    stop: &AtomicBool,
) -> bool {
    let until = Instant::now() + limit;
    loop {
        // Told to stop while looking, it looks a last time: then all is done, and somebody else did this.
        let over = Instant::now() > until || stop.load(Ordering::Relaxed);
        match direct.job_status(job.job_id).await {
            Ok(now) if now.attempt > job.attempt => return true,
            _ if over => return false,
            _ => moment().await,
        }
    }
}

/// Output and result of the old attempt; what the coordinator said to each.
async fn deliver(worker: &SimulatedWorker, job: &Assignment) -> Vec<Result<(), ProblemKind>> {
    let query =
        AppendQuery { job_id: job.job_id, attempt: job.attempt, stream: Stream::Stdout, offset: 0 };
    let result = SimulatedWorker::success_of(job);
    let output = loop {
        match worker.client.stream_output(&query, Bytes::from("late\n")).await {
            Err(error) if error.is_transient() => moment().await,
            answer => break answer.map(drop),
        }
    };
    let finish = loop {
        match worker.client.submit_result(&result).await {
            Err(error) if error.is_transient() => moment().await,
            answer => break answer.map(drop),
        }
    };
    [output, finish].into_iter().map(|answer| answer.map_err(|error| error.kind())).collect()
}
