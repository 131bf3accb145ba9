//! The scheduler on a real store: who is woken, when, and what becomes of answers nobody heard.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use lull_shared::{
    ids::{JobId, WorkerId},
    jobs::{ClaimReply, CreateJob, FailureKind, JobState, ReportFailure, SubmitResult},
    output::{AppendQuery, Stream},
    time::{Clock, Timestamp},
    workers::{Heartbeat, SandboxLevel, WorkerState},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Scheduler, Settings};
use crate::{
    reaper,
    store::{
        self, StoreError,
        conformance::{self, at},
    },
};

/// The longest a test waits for what must happen.
const SOON: Duration = Duration::from_secs(10);
/// A wait that outlasts every test.
const LONG: Duration = Duration::from_secs(60);

struct ManualClock(AtomicI64);

impl ManualClock {
    fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct Pool {
    scheduler: Scheduler,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

impl Pool {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(folder.path()).unwrap();
        let clock = Arc::new(ManualClock(AtomicI64::new(at(0).as_millis())));
        let scheduler = Scheduler::new(store, clock.clone(), Settings::default());
        Self { scheduler, clock, _folder: folder }
    }

    async fn worker(&self, level: SandboxLevel) -> WorkerId {
        conformance::a_worker(&self.scheduler.store, "pc", level).await
    }

    async fn submit(&self, min_sandbox: SandboxLevel) -> JobId {
        let mut request = CreateJob { command: "make".to_owned(), ..CreateJob::default() };
        request.requirements.min_sandbox = min_sandbox;
        let submitter = conformance::a_user("ann");
        self.scheduler.create_job(request, &submitter).await.unwrap().job.job_id
    }

    /// A worker that waits for one job, once it stands in the line.
    async fn waiting(&self, worker: WorkerId) -> JoinHandle<Result<ClaimReply, StoreError>> {
        let before = self.scheduler.waiting.len();
        let scheduler = self.scheduler.clone();
        let claim = tokio::spawn(async move { scheduler.claim(worker, 1, LONG).await });
        eventually("the worker waits", || self.scheduler.waiting.len() > before).await;
        claim
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < until, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}

async fn job_of(claim: JoinHandle<Result<ClaimReply, StoreError>>) -> JobId {
    let reply = tokio::time::timeout(SOON, claim).await.expect("a job comes soon");
    reply.unwrap().unwrap().jobs[0].job_id
}

#[tokio::test]
async fn a_waiting_worker_gets_a_job_the_moment_it_arrives() {
    let pool = Pool::open();
    let worker = pool.worker(SandboxLevel::L2).await;
    let claim = pool.waiting(worker).await;
    let job = pool.submit(SandboxLevel::L2).await;
    assert_eq!(job_of(claim).await, job);
    assert_eq!(pool.scheduler.waiting.len(), 0);
}

#[tokio::test]
async fn a_worker_that_does_not_wait_goes_away_with_nothing() {
    let pool = Pool::open();
    let worker = pool.worker(SandboxLevel::L2).await;
    let reply = pool.scheduler.claim(worker, 1, Duration::ZERO).await.unwrap();
    assert_eq!(reply.jobs, []);
    let reply = pool.scheduler.claim(worker, 1, Duration::from_millis(20)).await.unwrap();
    assert_eq!(reply.jobs, []);
    assert_eq!(pool.scheduler.waiting.len(), 0);
}

#[tokio::test]
async fn a_job_passes_by_a_worker_that_cannot_run_it() {
    let pool = Pool::open();
    let weak = pool.waiting(pool.worker(SandboxLevel::L0).await).await;
    let strong = pool.waiting(pool.worker(SandboxLevel::L3).await).await;
    let job = pool.submit(SandboxLevel::L2).await;
    assert_eq!(job_of(strong).await, job);
    assert!(!weak.is_finished());
}

#[tokio::test]
async fn many_jobs_and_many_waiting_workers_find_each_other() {
    let pool = Pool::open();
    let mut claims = Vec::new();
    for _ in 0..40 {
        claims.push(pool.waiting(pool.worker(SandboxLevel::L2).await).await);
    }
    let mut submitted =
        futures_util::future::join_all((0..40).map(|_| pool.submit(SandboxLevel::L2))).await;
    let mut claimed = futures_util::future::join_all(claims.into_iter().map(job_of)).await;
    submitted.sort();
    claimed.sort();
    assert_eq!(claimed, submitted);
}

#[tokio::test]
async fn a_claim_whose_caller_went_away_is_put_back() {
    let pool = Pool::open();
    let (gone, next) = (pool.worker(SandboxLevel::L2).await, pool.worker(SandboxLevel::L2).await);
    let job = pool.submit(SandboxLevel::L2).await;
    // The caller is dropped after its claim set out and before the answer came.
    assert!(pool.scheduler.claim(gone, 1, LONG).now_or_never().is_none());

    let reply = tokio::time::timeout(SOON, pool.scheduler.claim(next, 1, LONG)).await;

    assert_eq!(reply.expect("the job comes back soon").unwrap().jobs[0].job_id, job);
}

#[tokio::test]
async fn the_reaper_hands_a_silent_workers_job_to_a_waiting_one() {
    let pool = Pool::open();
    let (silent, next) = (pool.worker(SandboxLevel::L2).await, pool.worker(SandboxLevel::L2).await);
    let job = pool.submit(SandboxLevel::L2).await;
    pool.scheduler.claim(silent, 1, Duration::ZERO).await.unwrap();
    let claim = pool.waiting(next).await;
    let shutdown = CancellationToken::new();
    let every = Duration::from_millis(1);
    let scheduler = Arc::new(pool.scheduler.clone());
    let reaper = tokio::spawn(reaper::run(scheduler, every, shutdown.clone()));

    pool.clock.set(at(60));

    assert_eq!(job_of(claim).await, job);
    shutdown.cancel();
    reaper.await.unwrap();
    let job = pool.scheduler.store.job(job).await.unwrap();
    assert_eq!((job.attempt, job.worker_id), (2, Some(next)));
}

#[tokio::test]
async fn a_job_whose_backoff_ended_wakes_a_waiting_worker() {
    let pool = Pool::open();
    let worker = pool.worker(SandboxLevel::L2).await;
    let job = pool.submit(SandboxLevel::L2).await;
    let first = pool.scheduler.claim(worker, 1, Duration::ZERO).await.unwrap().jobs.remove(0);
    let failure = ReportFailure {
        job_id: job,
        attempt: first.attempt,
        kind: FailureKind::InputUnavailable,
        error_message: "no route".to_owned(),
    };
    let reply = pool.scheduler.report_failure(worker, failure).await.unwrap();
    assert_eq!(reply.status, JobState::Pending);
    let claim = pool.waiting(worker).await;
    pool.scheduler.reap().await.unwrap();
    assert!(!claim.is_finished());

    pool.clock.set(at(1));
    pool.scheduler.reap().await.unwrap();

    assert_eq!(job_of(claim).await, job);
}

#[tokio::test]
async fn a_job_given_back_goes_to_a_waiting_worker_at_once() {
    let pool = Pool::open();
    let (one, two) = (pool.worker(SandboxLevel::L2).await, pool.worker(SandboxLevel::L2).await);
    let job = pool.submit(SandboxLevel::L2).await;
    pool.scheduler.claim(one, 1, Duration::ZERO).await.unwrap();
    let claim = pool.waiting(two).await;

    let goodbye = Heartbeat {
        worker_id: one,
        status: WorkerState::Offline,
        reason: None,
        running: Vec::new(),
    };
    pool.scheduler.heartbeat(goodbye).await.unwrap();

    assert_eq!(job_of(claim).await, job);
}

#[tokio::test]
async fn a_follower_is_woken_by_each_step_of_its_job() {
    let pool = Pool::open();
    let worker = pool.worker(SandboxLevel::L2).await;
    let job = pool.submit(SandboxLevel::L2).await;
    let mut follower = pool.scheduler.follow(job);
    let mut woken = async || {
        tokio::time::timeout(SOON, follower.changed()).await.expect("the follower is woken");
    };

    pool.scheduler.claim(worker, 1, Duration::ZERO).await.unwrap();
    woken().await;
    let query = AppendQuery { job_id: job, attempt: 1, stream: Stream::Stdout, offset: 0 };
    let reply = pool.scheduler.append_output(worker, query, "hi".into()).await.unwrap();
    assert_eq!((reply.next_offset, reply.cancel), (2, false));
    woken().await;
    assert!(pool.scheduler.cancel(job).await.unwrap().cancel_requested);
    woken().await;
    let result = SubmitResult {
        job_id: job,
        attempt: 1,
        exit_code: None,
        error_message: Some("line 1 was ended by signal 9".to_owned()),
        artifacts: Vec::new(),
        output: Vec::new(),
    };
    let reply = pool.scheduler.submit_result(worker, result).await.unwrap();
    assert_eq!(reply.status, JobState::Failed);
    woken().await;
}
