//! The coordinator's own words: plain data, no I/O. The scheduler and the store both speak it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lull_shared::{
    credentials::{Role, SecretHash},
    files::Artifact,
    ids::{Digest, JobId, JoinCodeId, TokenId, WorkerId},
    jobs::{
        Assignment, AttemptEnding, CreateJob, Job, JobState, LeaseKey, Network, OnError,
        OnOwnerReturn, OnWorkerLost, Requirements, Shell,
    },
    time::Timestamp,
    workers::{SandboxLevel, SuspendReason, WorkerState},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

mod output;
mod waiting;

pub use output::{Appended, JobEvent, OutputCursor, OutputPage, OutputPiece};
pub use waiting::WaitFacts;

/// Who submits a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitter {
    /// The token; an idempotency key means something within one token only.
    pub token_id: TokenId,
    /// The token's name, which the job shows.
    pub name: String,
    /// How many turns this user has for one of a user of weight 1.
    pub weight: u32,
}

/// A job about to be accepted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id, already made.
    pub id: JobId,
    /// A name for people.
    pub name: String,
    /// What was asked for; its name and key are taken out.
    pub request: CreateJob,
    /// Who submits it.
    pub submitter: Submitter,
    /// The submission's own name, so that it can be sent again.
    pub idempotency: Option<Idempotency>,
    /// How many jobs of the submitter may wait, this one included.
    pub waiting_max: u64,
}

/// What is run: shared by the jobs of an array and by a job that is submitted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// A name for people.
    pub name: String,
    /// The command, lines separated by `\n`.
    pub command: String,
    /// The program and its arguments, when it runs without a shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// What reads the lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Shell>,
    /// What follows a line that failed.
    #[serde(default)]
    pub on_error: OnError,
    /// What the zip was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Patterns of the files to bring home.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// How long the command may run, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u32>,
    /// How long the job may wait for its first PC, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queue_secs: Option<u32>,
    /// What happens when the PC's owner comes back.
    #[serde(default)]
    pub on_owner_return: OnOwnerReturn,
}

/// A submission's own name and what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, chosen by the client.
    pub key: String,
    /// SHA-256 of the submission, to tell a repetition from another use of the key.
    pub body_hash: [u8; 32],
}

/// What an accepted submission gave.
#[derive(Clone, Debug)]
pub struct Created {
    /// The job as it stands.
    pub job: Job,
    /// Whether this call made it; false when it was a repetition.
    pub new: bool,
}

/// What a worker has free when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Who asks.
    pub worker: WorkerId,
    /// The most jobs to take.
    pub max: u32,
}

/// What a worker is and has, as far as jobs can ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    /// `linux`, `windows` or `macos`.
    pub os: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Logical processors.
    pub cpu_count: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Labels that jobs may ask for.
    pub labels: BTreeSet<String>,
    /// How well it isolates jobs.
    pub sandbox_level: SandboxLevel,
    /// What its owner lets jobs reach of the network.
    pub network: Network,
}

/// What a claim gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The attempts that began, best first.
    pub jobs: Vec<Assignment>,
    /// What the worker can be woken for; none while it is set aside or drained.
    pub capabilities: Option<Capabilities>,
    /// What was left to others because this worker failed it before: they are to be woken for it.
    pub passed_on: Vec<ReadyJob>,
}

/// The rules a claim goes by.
#[derive(Clone, Copy)]
pub struct ClaimRules {
    /// Whether a worker meets what a job asks for.
    pub meets: fn(&Requirements, &Capabilities) -> bool,
    /// Whose turn it is.
    pub turn: fn(&[Turn], u64) -> Option<Given>,
}

/// A user with a job that a worker could take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Up to where this user was served, in the measure of turns.
    pub served: u64,
    /// How many turns this user has for one of a user of weight 1.
    pub weight: u32,
    /// The order number of the user's first job.
    pub first: i64,
}

/// A turn that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// To which of the users, by position.
    pub index: usize,
    /// Up to where that user is served by it.
    pub served: u64,
    /// The turn that is given now; it never goes back.
    pub turn: u64,
}

/// A job that became claimable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyJob {
    /// What it asks for.
    pub requirements: Requirements,
    /// Its input, which some workers may have at hand.
    pub input: Option<Digest>,
    /// How many there are of it: more than one for an array.
    pub jobs: u32,
}

/// A job that is not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobChange {
    /// Which.
    pub job: JobId,
    /// Its state now.
    pub state: JobState,
    /// Number of its current or last attempt.
    pub attempt: u32,
    /// The array it belongs to.
    pub array: Option<JobId>,
}

/// What a write changed, for those who wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Jobs that are not as they were.
    pub jobs: Vec<JobChange>,
    /// Jobs that became claimable.
    pub ready: Vec<ReadyJob>,
    /// Workers that are not as they were.
    pub workers: Vec<WorkerId>,
}

/// What a write gave, and what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// What it gave.
    pub value: T,
    /// What it changed.
    pub changes: Changes,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name in the network.
    pub hostname: String,
    /// `linux`, `windows` or `macos`.
    pub os: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Logical processors.
    pub cpu_count: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Version of Lull on it.
    pub version: String,
    /// Room for this many attempts at once.
    pub slots: u32,
    /// How well it isolates jobs.
    pub sandbox_level: SandboxLevel,
    /// Labels that jobs may ask for.
    pub labels: BTreeSet<String>,
    /// What its owner lets jobs reach of the network.
    pub network: Network,
}

/// What entitles a worker to register.
#[derive(Clone, Debug)]
pub enum Enrolment {
    /// It showed a join code and brings the secret it will use from here on.
    Join {
        /// Which code.
        code: JoinCodeId,
        /// Proves that the PC was given the code.
        code_secret: SecretString,
        /// The secret of the worker's own token, of which only the hash is kept.
        worker_secret: SecretString,
    },
    /// It showed its own token, which has been checked.
    Known,
}

/// A worker's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignOfLife {
    /// Who.
    pub worker: WorkerId,
    /// What it is doing; `Offline` says goodbye.
    pub state: WorkerState,
    /// Why it takes no work.
    pub reason: Option<SuspendReason>,
    /// The attempts it runs or still has to report.
    pub running: Vec<LeaseKey>,
}

/// What became of the leases a sign of life named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Not the worker's any more.
    pub lost: Vec<LeaseKey>,
    /// To be ended, because a person cancelled the job.
    pub cancel: Vec<LeaseKey>,
    /// Whether it is to end what runs and take nothing new.
    pub drain: bool,
    /// Attempts that a worker saying goodbye left behind, and what became of their jobs.
    pub ended: Vec<EndedAttempt>,
}

/// An attempt that the coordinator ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedAttempt {
    /// Which.
    pub key: LeaseKey,
    /// Who held it.
    pub worker: WorkerId,
    /// What became of the job.
    pub next: NextStep,
}

/// A worker's account of how an attempt ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which attempt.
    pub key: LeaseKey,
    /// Who reports.
    pub worker: WorkerId,
    /// How it ended.
    pub ending: AttemptEnding,
    /// Exit code of the last line that ran.
    pub exit_code: Option<i32>,
    /// What went wrong, for a person.
    pub error_message: Option<String>,
    /// Files brought home; their blobs must be recorded.
    pub artifacts: Vec<Artifact>,
    /// The last output.
    pub output: Vec<OutputPiece>,
    /// SHA-256 of the report without its output: the same report again gets the same reply.
    pub hash: [u8; 32],
}

/// What became of a reported attempt's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The job's state after the report.
    pub state: JobState,
    /// Whether this call changed anything; false for a repetition.
    pub new: bool,
}

/// What the retry rules know of a job when one of its attempts ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptFacts {
    /// Earlier attempts whose command failed by itself.
    pub failures: u32,
    /// How often the command is tried again when it fails by itself.
    pub retries: u32,
    /// Earlier attempts that the worker could not run.
    pub could_not_run: u32,
    /// Earlier attempts whose worker fell silent.
    pub workers_lost: u32,
    /// What the submitter wants when a worker falls silent.
    pub on_worker_lost: OnWorkerLost,
    /// Whether a person cancelled the job.
    pub cancel_requested: bool,
    /// Any number, different for each attempt: spreads the pauses before the next one.
    pub seed: u64,
}

/// What becomes of a job after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// It is completed.
    Complete,
    /// It failed.
    Fail(FailReason),
    /// It is cancelled.
    Cancel,
    /// It may be claimed again, from this time on.
    Requeue {
        /// The end of its backoff.
        not_before: Timestamp,
    },
}

impl NextStep {
    /// The state the job is in after this step.
    #[must_use]
    pub const fn state(self) -> JobState {
        match self {
            Self::Complete => JobState::Completed,
            Self::Fail(_) => JobState::Failed,
            Self::Cancel => JobState::Cancelled,
            Self::Requeue { .. } => JobState::Pending,
        }
    }
}

/// Why a job is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailReason {
    /// The command itself failed.
    CommandFailed,
    /// It cannot be run anywhere.
    Refused,
    /// Too many workers could not run it.
    TriedTooOften,
    /// Its worker fell silent and the submitter wants it run at most once.
    WorkerLost,
    /// It is set aside: too many workers fell silent while they ran it.
    Poison,
}

/// The rule that says which users a worker failed in a row, after it ended an attempt of one of them; and whether it
/// is to be set aside for that.
pub type HealthRule = fn(&[i64], i64, AttemptEnding) -> Health;

/// How far a worker can be trusted with jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The different users whose jobs failed there since the last success.
    pub failed_users: Vec<i64>,
    /// Whether it is to be set aside.
    pub sick: bool,
}

/// The rules that apply when an attempt ends.
#[derive(Clone, Copy)]
pub struct EndRules {
    /// What becomes of the job.
    pub retry: RetryRule,
    /// What it says of the worker.
    pub health: HealthRule,
}

/// The rule that decides what follows an attempt; the store applies it inside the transaction that
/// ends the attempt, so nothing can change in between.
pub type RetryRule = fn(&AttemptFacts, AttemptEnding, Timestamp) -> NextStep;

/// An API token as the store keeps it.
#[derive(Clone)]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// A name for people.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// How many turns its jobs have for one of a token of weight 1.
    pub weight: u32,
    /// Hash of its secret.
    pub secret: SecretHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// A join code as the store keeps it.
#[derive(Clone)]
pub struct JoinCodeRecord {
    /// Its id.
    pub id: JoinCodeId,
    /// Hash of its secret.
    pub secret: SecretHash,
    /// How many PCs may join with it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When a PC last joined with it.
    pub last_used_at: Option<Timestamp>,
}

/// What is kept of what has ended, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Ended jobs with their output.
    pub jobs: Duration,
    /// The most ended jobs.
    pub jobs_max: u64,
    /// Files that nothing refers to.
    pub files: Duration,
}
