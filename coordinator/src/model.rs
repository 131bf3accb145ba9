//! The coordinator's own words: plain data, no I/O. The scheduler and the store both speak it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use lull_shared::{
    credentials::{Role, SecretHash},
    files::Artifact,
    ids::{Digest, InvalidId, JobId, JoinCodeId, TokenId, WorkerId},
    jobs::{Assignment, AttemptEnding, Job, JobState, LeaseKey, OnWorkerLost},
    output::Stream,
    time::Timestamp,
    workers::{SandboxLevel, SuspendReason, WorkerState},
};
use secrecy::SecretString;

/// Who submits a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitter {
    /// The token; an idempotency key means something within one token only.
    pub token_id: TokenId,
    /// The token's name, which the job shows.
    pub name: String,
}

/// A job about to be accepted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id, already made.
    pub id: JobId,
    /// A name for people.
    pub name: String,
    /// The command, lines separated by `\n`.
    pub command: String,
    /// The zip to unpack; its blob must be recorded.
    pub file_digest: Option<Digest>,
    /// What the zip was called.
    pub filename: Option<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Patterns of the files to bring home.
    pub outputs: Vec<String>,
    /// The least isolation it may run under.
    pub min_sandbox: SandboxLevel,
    /// What happens when its worker falls silent.
    pub on_worker_lost: OnWorkerLost,
    /// Who submits it.
    pub submitter: Submitter,
    /// The submission's own name, so that it can be sent again.
    pub idempotency: Option<Idempotency>,
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

/// What a claim gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The attempts that began, best first.
    pub jobs: Vec<Assignment>,
    /// How well the worker isolates jobs: what it can be woken for.
    pub level: SandboxLevel,
}

/// The rule that says which requirements a worker of a sandbox level meets.
pub type PlacementRule = fn(SandboxLevel) -> &'static [SandboxLevel];

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
    /// Attempts that a worker saying goodbye left behind, and what became of their jobs.
    pub ended: Vec<EndedAttempt>,
    /// Jobs that had been put back and are the worker's again.
    pub resumed: Vec<JobId>,
}

/// An attempt that the coordinator ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedAttempt {
    /// Which.
    pub key: LeaseKey,
    /// Who held it.
    pub worker: WorkerId,
    /// What became of the job.
    pub next: NextStep,
    /// The least isolation the job may run under.
    pub min_sandbox: SandboxLevel,
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
    /// The least isolation the job may run under.
    pub min_sandbox: SandboxLevel,
}

/// Bytes of one stream and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPiece {
    /// Which stream.
    pub stream: Stream,
    /// Offset of the first byte in that stream.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// How far a stream is stored after an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset the next bytes must carry.
    pub next_offset: u64,
    /// A person cancelled the job.
    pub cancel: bool,
}

/// What the retry rules know of a job when one of its attempts ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptFacts {
    /// Earlier attempts that the worker could not run.
    pub could_not_run: u32,
    /// Earlier attempts whose worker fell silent.
    pub workers_lost: u32,
    /// What the submitter wants when a worker falls silent.
    pub on_worker_lost: OnWorkerLost,
    /// Whether a person cancelled the job.
    pub cancel_requested: bool,
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
    /// Too many of its workers fell silent.
    LostTooManyWorkers,
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

/// One thing that happened to a job, with the bytes as they came.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEvent {
    /// An attempt began, or goes on after it had been given up.
    Started {
        /// Its number.
        attempt: u32,
        /// Where it runs.
        hostname: String,
    },
    /// Bytes of one stream.
    Output {
        /// The attempt they belong to.
        attempt: u32,
        /// Which stream.
        stream: Stream,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Bytes that are not kept lie between what came before and what follows.
    Dropped {
        /// The attempt.
        attempt: u32,
        /// Which stream.
        stream: Stream,
        /// How many bytes.
        bytes: u64,
    },
    /// An attempt ended without ending the job.
    Requeued {
        /// Its number.
        attempt: u32,
        /// How it ended.
        ending: AttemptEnding,
        /// Why, for a person.
        error_message: Option<String>,
    },
    /// The job reached its last state; nothing follows.
    Ended {
        /// The job as it now stands.
        job: Box<Job>,
    },
}

/// Where a follower of a job's events is: after which event, and how far into each stream, so that
/// bytes which left the store while it was away are counted exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputCursor {
    /// The last event seen.
    pub seq: i64,
    /// The attempt the offsets belong to.
    pub attempt: u32,
    /// The next byte of standard output.
    pub stdout: u64,
    /// The next byte of standard error.
    pub stderr: u64,
}

impl OutputCursor {
    /// The next byte of one stream.
    #[must_use]
    pub const fn next_offset(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Moves on in one stream.
    pub const fn set_next_offset(&mut self, stream: Stream, offset: u64) {
        match stream {
            Stream::Stdout => self.stdout = offset,
            Stream::Stderr => self.stderr = offset,
        }
    }
}

impl fmt::Display for OutputCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.seq, self.attempt, self.stdout, self.stderr)
    }
}

impl FromStr for OutputCursor {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut parts = text.split('-');
        let mut next = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(InvalidId);
        let cursor = Self {
            seq: i64::try_from(next()?).map_err(|_| InvalidId)?,
            attempt: u32::try_from(next()?).map_err(|_| InvalidId)?,
            stdout: next()?,
            stderr: next()?,
        };
        if parts.next().is_none() { Ok(cursor) } else { Err(InvalidId) }
    }
}

/// Part of one stream of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPage {
    /// The attempt the bytes belong to.
    pub attempt: u32,
    /// The bytes; empty at the end of what is stored.
    pub bytes: Bytes,
    /// Offset of the first of them; larger than asked for when bytes before it are not kept.
    pub offset: u64,
    /// How many bytes of the whole stream are not kept.
    pub dropped: u64,
}

impl OutputPage {
    /// Where the next page begins.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = OutputCursor { seq: 7, attempt: 2, stdout: 1 << 40, stderr: 0 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for damaged in
            ["", "1", "1-2-3", "1-2-3-4-5", "-1-2-3-4", "1-2-3-x", "99999999999999999999-1-0-0"]
        {
            assert!(damaged.parse::<OutputCursor>().is_err(), "{damaged:?}");
        }
    }
}
