//! What the coordinator asks of its database.
//!
//! - A method is a step in a job's life, not a table: each is one transaction, on disk before it
//!   returns, and takes the time as an argument.
//! - Handlers read through [`StoreRead`]; only the scheduler holds [`Store`].
//! - An attempt's number is its fencing token. Every write of a worker names job, attempt and worker
//!   and is checked in the SQL `where`. A lease that ran out fences nothing: until a newer attempt
//!   begins or the job ends, the old one may renew, append and deliver, and takes the job back by it.
//! - Rules that decide (the retry rule) come in as plain functions and are applied inside the
//!   transaction that needs them.
//! - Output is kept as events in the order they happened. Of each stream of an attempt the first
//!   [`HEAD_BYTES`] stay and of the rest the last [`TAIL_BYTES`], in whole chunks.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use lull_shared::{
    credentials::SecretHash,
    ids::{Digest, JobId, JoinCodeId, TokenId, WorkerId},
    jobs::{Job, JobFilter, JobList, LeaseKey},
    output::Stream,
    time::Timestamp,
    workers::Worker,
};

use crate::model::{
    ApiToken, Appended, ClaimRules, Claimed, Created, Done, EndRules, EndedAttempt, Enrolment,
    JobEvent, JoinCodeRecord, Keeping, Machine, NewJob, Offer, OutputCursor, OutputPage,
    OutputPiece, ReadyJob, Recorded, Renewal, Report, SignOfLife, Submitter, WaitFacts,
};

pub mod lock;
pub mod network;
pub mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;

/// A worker that was not heard of for this long is offline.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(30);
/// Of each stream this many bytes are kept from its beginning.
pub const HEAD_BYTES: u64 = 1024 * 1024;
/// Of each stream at most this many bytes are kept from its end.
pub const TAIL_BYTES: u64 = 15 * 1024 * 1024;
/// How much of a stream's end a job shows.
pub const SHOWN_BYTES: usize = 64 * 1024;
/// The most jobs on one page.
pub const PAGE_MAX: u32 = 500;
/// Name of the database in the data folder.
pub const DATABASE: &str = "lull.db";
/// The most jobs one claim takes.
pub const CLAIM_MAX: u32 = 64;

/// Opens the database of a data folder, making or upgrading it as needed.
///
/// The server holds the folder's [`lock::FolderLock`] besides; subcommands open the database while
/// the server runs.
///
/// # Errors
/// [`StoreError::NewerSchema`] for a database of a newer version, [`StoreError::Corrupt`] for a file
/// that is not a database, [`StoreError::Unreachable`] when it cannot be opened.
pub fn open(data_dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(sqlite::SqliteStore::open(&data_dir.join(DATABASE))?))
}

/// Why the store did not do what it was asked, in the terms of the caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// A newer attempt has begun or the job has ended; the attempt changes nothing any more.
    #[error("the attempt does not hold the job any more")]
    LeaseLost,
    /// The state of the thing does not allow it.
    #[error("{0}")]
    Conflict(&'static str),
    /// The same key came before with another submission.
    #[error("the idempotency key was used for another submission")]
    KeyReused,
    /// As many jobs of the user wait as may wait.
    #[error(
        "at most {waiting_max} jobs of one user may wait; submit this when some of them have run"
    )]
    QueueFull {
        /// How many may wait.
        waiting_max: u64,
    },
    /// The bytes do not continue the stream; `next` is where it goes on.
    #[error("the output goes on at byte {next}")]
    OffsetMismatch {
        /// The offset the next bytes must carry.
        next: u64,
    },
    /// A file has not been uploaded.
    #[error("file {0} has not been uploaded")]
    FileMissing(Digest),
    /// The join code is unknown, wrong, expired or used up.
    #[error("the join code is not valid, or not any more")]
    JoinRefused,
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The disk is full; nothing was changed and reading still works.
    #[error("the disk is full")]
    DiskFull(#[source] rusqlite::Error),
    /// The database does not answer; the same call may succeed later.
    #[error("the database does not answer")]
    Unreachable(#[source] Cause),
    /// What is stored cannot be read.
    #[error(
        "the database is damaged or not one of Lull; nothing was changed: restore a copy that \
         `lull-coordinator backup` made, or name another data folder"
    )]
    Corrupt(#[source] Cause),
    /// A newer version of Lull wrote the database.
    #[error(
        "the database has schema {found} and this version of Lull knows {known}: \
         start the newer version, or restore the copy from before the upgrade"
    )]
    NewerSchema {
        /// The schema of the database.
        found: i32,
        /// The newest schema this version knows.
        known: i32,
    },
    /// The database of an older version could not be brought up to date.
    #[error(
        "the database could not be upgraded and is as it was before; \
         a copy of it lies beside it, and the older version can go on with it"
    )]
    UpgradeFailed(#[source] Cause),
    /// Another coordinator serves this data folder.
    #[error(
        "another coordinator is running on the data folder {0}; stop it first, or name another folder with --data-dir"
    )]
    FolderInUse(String),
}

/// What lies behind an error.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Reads, open to every handler.
#[async_trait]
pub trait StoreRead: Send + Sync {
    /// Fails unless the database can be read and written.
    async fn ready(&self) -> Result<(), StoreError>;

    /// One job with its attempts, artifacts and the end of its output.
    async fn job(&self, id: JobId) -> Result<Job, StoreError>;

    /// A page of jobs, newest first, and the counts of all.
    async fn jobs(&self, filter: &JobFilter) -> Result<JobList, StoreError>;

    /// All workers by host name; one that has been silent for [`OFFLINE_AFTER`] is offline.
    async fn workers(&self, now: Timestamp) -> Result<Vec<Worker>, StoreError>;

    /// Hash of a worker's secret, or `None` for an unknown worker.
    async fn worker_secret(&self, id: WorkerId) -> Result<Option<SecretHash>, StoreError>;

    /// An API token, expired or not.
    async fn token(&self, id: TokenId) -> Result<Option<ApiToken>, StoreError>;

    /// A join code, spent or not.
    async fn join_code(&self, id: JoinCodeId) -> Result<Option<JoinCodeRecord>, StoreError>;

    /// Size of a recorded blob, or `None` when there is no such blob.
    async fn blob_size(&self, digest: Digest) -> Result<Option<u64>, StoreError>;

    /// Whether the blob is the file of a job that the worker runs.
    async fn may_read_blob(&self, worker: WorkerId, digest: Digest) -> Result<bool, StoreError>;

    /// What happened to a job after the cursor, oldest first: at least one event if there is one, and
    /// about `bytes_max` of output at most. Each comes with the cursor that continues after it.
    async fn events(
        &self,
        job: JobId,
        after: OutputCursor,
        bytes_max: usize,
    ) -> Result<Vec<(OutputCursor, JobEvent)>, StoreError>;

    /// Stored bytes of one stream from `from` on, about 1 MiB; of the last attempt unless told.
    async fn output(
        &self,
        job: JobId,
        attempt: Option<u32>,
        stream: Stream,
        from: u64,
    ) -> Result<OutputPage, StoreError>;

    /// What could be claimed now: for each class of requirements the number of jobs, up to `limit` each.
    async fn claimable(&self, limit: u32) -> Result<Vec<ReadyJob>, StoreError>;

    /// All there is to know of a job that waits, read at one moment.
    async fn wait_facts(&self, job: JobId, now: Timestamp) -> Result<WaitFacts, StoreError>;
}

/// Writes, held by the scheduler alone. Each tells what it changed, for those who wait for it.
#[async_trait]
pub trait Store: StoreRead {
    /// Accepts a job, or finds the one that the same submission made before. Refuses it with
    /// [`StoreError::QueueFull`] when more of the user's jobs would wait than may.
    async fn create_job(&self, job: NewJob, now: Timestamp) -> Result<Done<Created>, StoreError>;

    /// Makes a new job that asks for what an ended one asked for; of the user's jobs `waiting_max` may wait.
    async fn resubmit(
        &self,
        from: JobId,
        id: JobId,
        submitter: Submitter,
        waiting_max: u64,
        now: Timestamp,
    ) -> Result<Done<Job>, StoreError>;

    /// Starts the next attempt of the best jobs the worker can run, best first. A worker that is drained or sick gets
    /// nothing, and none a job that failed on it while another one could take it.
    async fn claim(
        &self,
        offer: Offer,
        rules: ClaimRules,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Done<Claimed>, StoreError>;

    /// Puts claimed jobs back whose worker never heard of the claim.
    async fn unclaim(
        &self,
        worker: WorkerId,
        keys: Vec<LeaseKey>,
        now: Timestamp,
        rules: EndRules,
    ) -> Result<Done<Vec<EndedAttempt>>, StoreError>;

    /// Notes a worker's state and renews the leases it names. A worker that says goodbye gives back
    /// what it does not name.
    async fn heartbeat(
        &self,
        life: SignOfLife,
        now: Timestamp,
        lease: Duration,
        rules: EndRules,
    ) -> Result<Done<Renewal>, StoreError>;

    /// Enrols a worker or updates a known one. Attempts it held before are given `grace` to be named
    /// in a heartbeat: a worker that registers has just started.
    async fn register(
        &self,
        worker: WorkerId,
        machine: Machine,
        enrolment: Enrolment,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Done<()>, StoreError>;

    /// Lets a worker end what runs and take nothing new, or take jobs again.
    async fn set_draining(
        &self,
        worker: WorkerId,
        draining: bool,
        now: Timestamp,
    ) -> Result<Done<Worker>, StoreError>;

    /// Lets a worker take jobs again that was set aside.
    async fn release_worker(
        &self,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Done<Worker>, StoreError>;

    /// Appends to a stream. Bytes that are stored already are skipped.
    async fn append_output(
        &self,
        worker: WorkerId,
        key: LeaseKey,
        piece: OutputPiece,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Done<Appended>, StoreError>;

    /// Ends an attempt as its worker reports it. The same report again gets the same reply.
    async fn finish(
        &self,
        report: Report,
        now: Timestamp,
        rules: EndRules,
    ) -> Result<Done<Recorded>, StoreError>;

    /// Cancels a job or a whole array: at once what waits, by asking its worker what runs.
    async fn cancel(&self, job: JobId, now: Timestamp) -> Result<Done<Job>, StoreError>;

    /// Stops a waiting job from being claimed, or lets it be claimed again.
    async fn set_held(&self, job: JobId, held: bool) -> Result<Done<Job>, StoreError>;

    /// Ends attempts whose lease ran out, oldest first.
    async fn expire(
        &self,
        now: Timestamp,
        limit: u32,
        rules: EndRules,
    ) -> Result<Done<Vec<EndedAttempt>>, StoreError>;

    /// Brings near again what lies further ahead than it can: the ends of leases (`lease`) and of pauses (`pause`), and
    /// workers heard of in the future. That happens when the clock was set back.
    async fn set_right(
        &self,
        now: Timestamp,
        lease: Duration,
        pause: Duration,
    ) -> Result<(), StoreError>;

    /// Does what falls due by the clock alone, up to about `limit` of it: ends pauses, fails what waited too long,
    /// tells those who wait for ended jobs. Gives whether there may be more.
    async fn tick(&self, now: Timestamp, limit: u32) -> Result<Done<bool>, StoreError>;

    /// Removes up to `limit` ended jobs that are older than they are kept, or more than are kept, oldest first; an
    /// array with all its jobs. Gives how many rows of jobs it removed.
    async fn sweep_jobs(
        &self,
        keeping: Keeping,
        now: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError>;

    /// Forgets up to `limit` blobs that nothing refers to and that were of no use since `before`. Their files are the
    /// caller's to remove.
    async fn forget_blobs(&self, before: Timestamp, limit: u32) -> Result<Vec<Digest>, StoreError>;

    /// Notes that a blob is of use now, so that it is kept as long as a new one.
    async fn touch_blob(&self, digest: Digest, now: Timestamp) -> Result<(), StoreError>;

    /// Marks workers offline that have been silent for [`OFFLINE_AFTER`], and tells which.
    async fn mark_silent(&self, now: Timestamp) -> Result<Done<Vec<WorkerId>>, StoreError>;

    /// Records a blob that is durable in the blob store.
    async fn record_blob(
        &self,
        digest: Digest,
        size_bytes: u64,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Keeps a new API token.
    async fn add_token(&self, token: ApiToken) -> Result<(), StoreError>;

    /// Notes that a token was used.
    async fn touch_token(&self, id: TokenId, now: Timestamp) -> Result<(), StoreError>;

    /// Keeps a new join code.
    async fn add_join_code(&self, code: JoinCodeRecord) -> Result<(), StoreError>;
}
