//! Turns requests into steps in a job's life: reads the clock, asks the pure rules, writes the store,
//! and wakes whoever waits for what happened.
//!
//! - The scheduler is the only writer. `placement` and `retry` decide and do nothing; `dispatch` knows
//!   the workers that wait for a job, `follow` the readers that wait for output.
//! - Waking is a hint and never the truth: a woken worker claims in the store like any other. A hint
//!   that got lost is made good by [`Scheduler::reap`], once a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lull_shared::{
    files::StoredFile,
    ids::{Digest, JobId, WorkerId},
    jobs::{
        Assignment, ClaimReply, CreateJob, Explanation, Job, LeaseKey, ReportFailure, ResultReply,
        SubmitResult,
    },
    output::{AppendQuery, AppendReply},
    time::{Clock, Timestamp},
    workers::{Heartbeat, HeartbeatReply, RegisterReply, RegisterWorker, Worker},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    model::{
        ApiToken, Changes, ClaimRules, Claimed, Created, Done, EndRules, EndedAttempt, Enrolment,
        JoinCodeRecord, Keeping, Offer, OutputPiece, Report, SignOfLife, Submitter,
    },
    store::{CLAIM_MAX, Store, StoreError},
};

mod dispatch;
pub mod explain;
pub mod fair_share;
mod feed;
mod follow;
pub mod health;
mod incoming;
pub mod placement;
pub mod retry;
mod settings;

pub use feed::{Feed, FeedCursor};
pub use follow::Follower;
pub use settings::Settings;
use settings::{DUE_MAX, EXPIRED_MAX, USED_EVERY, WAKES_MAX};

/// The rules by which jobs are handed out.
pub const CLAIM_RULES: ClaimRules =
    ClaimRules { meets: placement::meets, turn: fair_share::next_turn };

/// The rules by which attempts end.
pub const END_RULES: EndRules =
    EndRules { retry: retry::after_attempt, health: health::after_attempt };

/// Decides and writes. Shared by every handler; clones are the same scheduler.
#[derive(Clone)]
pub struct Scheduler {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    waiting: Arc<dispatch::Waiting>,
    followers: Arc<follow::Followers>,
    feed: Arc<Feed>,
    /// The time of the last pass of the reaper.
    reaped_at: Arc<AtomicI64>,
}

impl Scheduler {
    /// A scheduler over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: Settings) -> Self {
        let feed = Arc::new(Feed::new(clock.now().as_millis().cast_unsigned()));
        let (waiting, followers) = (Arc::default(), Arc::default());
        // A clock that was set back while nothing ran here is noticed at the first pass.
        let reaped_at = Arc::new(AtomicI64::new(i64::MAX));
        Self { store, clock, settings, waiting, followers, feed, reaped_at }
    }

    /// What changes in the pool.
    #[must_use]
    pub fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed)
    }

    /// The time by the coordinator's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Accepts a job and wakes the worker that waits longest and can run it.
    ///
    /// # Errors
    /// [`StoreError::KeyReused`], [`StoreError::QueueFull`], [`StoreError::FileMissing`], or the store's own.
    pub async fn create_job(
        &self,
        request: CreateJob,
        submitter: &Submitter,
    ) -> Result<Created, StoreError> {
        let job = incoming::new_job(request, submitter, self.settings.waiting_max);
        let created = self.tell(self.store.create_job(job, self.now()).await?);
        if created.new {
            tracing::info!(job.id = %created.job.job_id, "job created");
        }
        Ok(created)
    }

    /// Accepts a new job that asks for what an ended one asked for.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`] for a job that has not ended, or the store's own.
    pub async fn resubmit(&self, from: JobId, submitter: &Submitter) -> Result<Job, StoreError> {
        let id = JobId::generate();
        let (submitter, waiting_max) = (submitter.clone(), self.settings.waiting_max);
        let made = self.store.resubmit(from, id, submitter, waiting_max, self.now()).await?;
        tracing::info!(job.id = %id, from.id = %from, "job submitted again");
        Ok(self.tell(made))
    }

    /// Gives the worker up to `max` jobs, waiting up to `wait` for the first one. Empty when none came.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown worker, or the store's own.
    pub async fn claim(
        &self,
        worker: WorkerId,
        max: u32,
        wait: Duration,
    ) -> Result<ClaimReply, StoreError> {
        let offer = Offer { worker, max: max.clamp(1, CLAIM_MAX) };
        let (asked_at, since) = (Instant::now(), self.waiting.since());
        let Claimed { jobs, capabilities, passed_on } = self.try_claim(offer).await?;
        if !jobs.is_empty() || wait.is_zero() {
            return Ok(ClaimReply { jobs, waited_ms: 0 });
        }
        let until = asked_at + wait;
        let Some(capabilities) = capabilities else {
            // Set aside: no job is for it. It asks again, so that it hears when that is over.
            sleep_until(until).await;
            return Ok(ClaimReply::default());
        };
        let mut place = self.waiting.enter(worker, capabilities);
        place.pass_on(&passed_on);
        // No job slips through between the claim and the place.
        let mut claim_again = self.waiting.missed(since);
        loop {
            if !claim_again && timeout_at(until, place.woken()).await.is_err() {
                return Ok(ClaimReply::default());
            }
            claim_again = false;
            let waited_ms = millis(asked_at.elapsed());
            let Claimed { jobs, passed_on, .. } = self.try_claim(offer).await?;
            place.pass_on(&passed_on);
            if !jobs.is_empty() {
                place.leave_served();
                return Ok(ClaimReply { jobs, waited_ms });
            }
        }
    }

    /// Claims once. When the caller goes away before it has the answer, what was claimed is put back.
    async fn try_claim(&self, offer: Offer) -> Result<Claimed, StoreError> {
        let (reply, answer) = oneshot::channel();
        let this = self.clone();
        tokio::spawn(async move {
            let claimed =
                this.store.claim(offer, CLAIM_RULES, this.now(), this.settings.lease).await;
            let claimed = claimed.map(|done| this.tell(done));
            if let Err(Ok(unheard)) = reply.send(claimed) {
                this.unclaim(offer.worker, &unheard.jobs).await;
            }
        });
        let claimed = answer.await.map_err(|gone| StoreError::Unreachable(gone.into()))??;
        for job in &claimed.jobs {
            if let Some(input) = job.file_digest {
                self.waiting.note_input(offer.worker, input);
            }
            tracing::info!(
                job.id = %job.job_id,
                attempt.number = job.attempt,
                worker.id = %offer.worker,
                "job claimed"
            );
        }
        Ok(claimed)
    }

    async fn unclaim(&self, worker: WorkerId, jobs: &[Assignment]) {
        if jobs.is_empty() {
            return;
        }
        let keys: Vec<LeaseKey> = jobs.iter().map(Assignment::key).collect();
        match self.store.unclaim(worker, keys, self.now(), END_RULES).await {
            Ok(ended) => log_given_up(&self.tell(ended)),
            // The leases run out by themselves.
            Err(error) => tracing::warn!(%error, "could not put unheard claims back"),
        }
    }

    /// Notes a worker's state and renews the leases it names.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown worker, or the store's own.
    pub async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply, StoreError> {
        let life = SignOfLife {
            worker: heartbeat.worker_id,
            state: heartbeat.status,
            reason: heartbeat.reason,
            running: heartbeat.running,
        };
        let lease = self.settings.lease;
        let renewal = self.tell(self.store.heartbeat(life, self.now(), lease, END_RULES).await?);
        log_given_up(&renewal.ended);
        Ok(HeartbeatReply { lost: renewal.lost, cancel: renewal.cancel, drain: renewal.drain })
    }

    /// Lets a worker end what runs and take nothing new, or take jobs again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the store's own.
    pub async fn drain_worker(&self, id: WorkerId, drain: bool) -> Result<Worker, StoreError> {
        let worker = self.tell(self.store.set_draining(id, drain, self.now()).await?);
        tracing::info!(worker.id = %id, drain, "worker drained or let go");
        Ok(worker)
    }

    /// Lets a worker take jobs again that was set aside as sick.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the store's own.
    pub async fn release_worker(&self, id: WorkerId) -> Result<Worker, StoreError> {
        let worker = self.tell(self.store.release_worker(id, self.now()).await?);
        tracing::info!(worker.id = %id, "worker released");
        Ok(worker)
    }

    /// Enrols a worker or updates a known one. Whether the worker's own token was shown is the
    /// caller's to check.
    ///
    /// # Errors
    /// [`StoreError::JoinRefused`], [`StoreError::Conflict`] for an id that another secret holds,
    /// [`StoreError::NotFound`] for an unknown worker without a join code, or the store's own.
    pub async fn register(
        &self,
        request: RegisterWorker,
        enrolment: Enrolment,
    ) -> Result<RegisterReply, StoreError> {
        let worker_id = request.worker_id;
        let grace = self.settings.heartbeat * 2;
        for input in &request.cached_inputs {
            self.waiting.note_input(worker_id, *input);
        }
        let machine = incoming::machine(request);
        self.tell(self.store.register(worker_id, machine, enrolment, self.now(), grace).await?);
        tracing::info!(worker.id = %worker_id, "worker registered");
        Ok(RegisterReply {
            worker_id,
            heartbeat_ms: millis(self.settings.heartbeat),
            lease_ms: millis(self.settings.lease),
            coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Appends to a stream of an attempt the worker holds.
    ///
    /// # Errors
    /// [`StoreError::OffsetMismatch`] for a gap, [`StoreError::LeaseLost`], or the store's own.
    pub async fn append_output(
        &self,
        worker: WorkerId,
        query: AppendQuery,
        bytes: Bytes,
    ) -> Result<AppendReply, StoreError> {
        let key = LeaseKey { job_id: query.job_id, attempt: query.attempt };
        let piece = OutputPiece { stream: query.stream, offset: query.offset, bytes };
        let lease = self.settings.lease;
        let appended =
            self.tell(self.store.append_output(worker, key, piece, self.now(), lease).await?);
        self.followers.notify(key.job_id);
        Ok(AppendReply { next_offset: appended.next_offset, cancel: appended.cancel })
    }

    /// Records that the command ran.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], [`StoreError::FileMissing`] for an artifact that was not uploaded,
    /// [`StoreError::OffsetMismatch`], [`StoreError::Invalid`], or the store's own.
    pub async fn submit_result(
        &self,
        worker: WorkerId,
        result: SubmitResult,
    ) -> Result<ResultReply, StoreError> {
        self.finish(incoming::result(worker, result)?).await
    }

    /// Records a failure that is not the command's own.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], or the store's own.
    pub async fn report_failure(
        &self,
        worker: WorkerId,
        failure: ReportFailure,
    ) -> Result<ResultReply, StoreError> {
        self.finish(incoming::failure(worker, failure)).await
    }

    async fn finish(&self, report: Report) -> Result<ResultReply, StoreError> {
        let (key, worker, ending) = (report.key, report.worker, report.ending);
        let recorded = self.tell(self.store.finish(report, self.now(), END_RULES).await?);
        if recorded.new {
            tracing::info!(
                job.id = %key.job_id,
                attempt.number = key.attempt,
                worker.id = %worker,
                attempt.ending = ending.name(),
                job.state = recorded.state.name(),
                "attempt ended"
            );
        }
        Ok(ResultReply { job_id: key.job_id, status: recorded.state })
    }

    /// Cancels a job: at once while it waits, by asking its worker while it runs.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a job that ended otherwise, [`StoreError::NotFound`], or the
    /// store's own.
    pub async fn cancel(&self, job: JobId) -> Result<Job, StoreError> {
        let cancelled = self.tell(self.store.cancel(job, self.now()).await?);
        tracing::info!(job.id = %job, job.state = cancelled.status.name(), "job cancelled");
        Ok(cancelled)
    }

    /// Stops a waiting job from being claimed, or lets it be claimed again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a job that runs or has ended, [`StoreError::NotFound`], or the store's own.
    pub async fn set_held(&self, job: JobId, held: bool) -> Result<Job, StoreError> {
        let changed = self.tell(self.store.set_held(job, held).await?);
        tracing::info!(job.id = %job, held, "job held or released");
        Ok(changed)
    }

    /// Why a job waits.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the store's own.
    pub async fn explain(&self, job: JobId) -> Result<Explanation, StoreError> {
        let now = self.now();
        Ok(explain::explain(&self.store.wait_facts(job, now).await?, now))
    }

    /// Removes up to `limit` ended jobs that are not kept any longer, and tells how many it removed.
    ///
    /// # Errors
    /// The store's own.
    pub async fn sweep_jobs(&self, keeping: Keeping, limit: u32) -> Result<u32, StoreError> {
        self.store.sweep_jobs(keeping, self.now(), limit).await
    }

    /// Forgets up to `limit` blobs that nothing refers to and that are not kept any longer. Their files are the
    /// caller's to remove.
    ///
    /// # Errors
    /// The store's own.
    pub async fn forget_blobs(
        &self,
        keeping: Keeping,
        limit: u32,
    ) -> Result<Vec<Digest>, StoreError> {
        self.store.forget_blobs(self.now() - keeping.files, limit).await
    }

    /// Notes that a blob is about to be used, so that it is kept.
    ///
    /// # Errors
    /// The store's own.
    pub async fn touch_blob(&self, digest: Digest) -> Result<(), StoreError> {
        self.store.touch_blob(digest, self.now()).await
    }

    /// Records a blob that is durable in the blob store.
    ///
    /// # Errors
    /// The store's own.
    pub async fn record_blob(&self, file: StoredFile) -> Result<(), StoreError> {
        self.store.record_blob(file.digest, file.size_bytes, self.now()).await
    }

    /// Keeps a new API token.
    ///
    /// # Errors
    /// The store's own.
    pub async fn add_token(&self, token: ApiToken) -> Result<(), StoreError> {
        self.store.add_token(token).await
    }

    /// Notes that a token was used, unless that was noted less than a minute ago.
    ///
    /// # Errors
    /// The store's own.
    pub async fn touch_token(&self, token: &ApiToken) -> Result<(), StoreError> {
        let now = self.now();
        if token.last_used_at.is_some_and(|used| now.since(used) < USED_EVERY) {
            return Ok(());
        }
        self.store.touch_token(token.id, now).await
    }

    /// Keeps a new join code.
    ///
    /// # Errors
    /// The store's own.
    pub async fn add_join_code(&self, code: JoinCodeRecord) -> Result<(), StoreError> {
        self.store.add_join_code(code).await
    }

    /// Follows a job: the follower is woken whenever something happens to it.
    #[must_use]
    pub fn follow(&self, job: JobId) -> Follower {
        self.followers.follow(job)
    }

    /// Ends leases that ran out, marks silent workers, and wakes workers for jobs that can be claimed:
    /// those whose backoff ended, and those for which a wake-up got lost.
    ///
    /// # Errors
    /// The store's own.
    pub async fn reap(&self) -> Result<(), StoreError> {
        let now = self.now();
        if now.as_millis() < self.reaped_at.swap(now.as_millis(), Ordering::Relaxed) {
            self.store.set_right(now, self.settings.lease, retry::RETRY_PAUSE_MAX).await?;
        }
        loop {
            let ended = self.tell(self.store.expire(now, EXPIRED_MAX, END_RULES).await?);
            log_given_up(&ended);
            if ended.len() < EXPIRED_MAX as usize {
                break;
            }
        }
        while self.tell(self.store.tick(now, DUE_MAX).await?) {}
        for worker in self.tell(self.store.mark_silent(now).await?) {
            tracing::warn!(worker.id = %worker, "worker fell silent");
        }
        if self.waiting.len() == 0 {
            return Ok(());
        }
        for job in self.store.claimable(WAKES_MAX).await? {
            self.waiting.wake(&job);
        }
        Ok(())
    }

    /// Tells whoever waits what a write changed, and gives what it gave.
    fn tell<T>(&self, done: Done<T>) -> T {
        let Done { value, changes } = done;
        let Changes { jobs, ready, workers: _ } = &changes;
        for change in jobs {
            self.followers.notify(change.job);
        }
        for job in ready {
            self.waiting.wake(job);
        }
        self.feed.tell(&changes);
        value
    }
}

fn log_given_up(ended: &[EndedAttempt]) {
    for attempt in ended {
        tracing::info!(
            job.id = %attempt.key.job_id,
            attempt.number = attempt.key.attempt,
            worker.id = %attempt.worker,
            job.state = attempt.next.state().name(),
            "attempt given up"
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
