//! Jobs on the wire: submitting them, claiming them, reporting how they ended.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    files::Artifact,
    ids::{JobId, WorkerId},
    time::Timestamp,
};

mod explanation;
mod submission;
mod work;

pub use explanation::{Ahead, Explanation, Pool, WaitReason};
pub use submission::{
    AFTER_MAX, ARRAY_MAX, COMMAND_BYTES_MAX, CreateJob, ENV_BYTES_MAX, ENV_VARS_MAX,
    ITEMS_BYTES_MAX, LABELS_MAX, Network, OUTPUTS_MAX, OnError, OnOwnerReturn, OnWorkerLost,
    PRIORITIES, RETRIES_MAX, Requirements, SECS_MAX, Shell,
};
pub use work::{
    Assignment, ClaimQuery, ClaimReply, FailureKind, OutputPart, RESULTS_MAX, ReportFailure,
    ResultOutcome, ResultReplies, ResultReply, Results, SubmitResult, SubmitResults,
};

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum JobState {
    /// Waits for a worker.
    Pending,
    /// A worker holds a lease on it.
    Running,
    /// Every line ended with exit code 0.
    Completed,
    /// A line ended with another exit code, or the job could not be run.
    Failed,
    /// A person ended it.
    Cancelled,
}

impl JobState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether nothing can change any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The wire form, which the store keeps too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the form that [`JobState::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One job, as people and programs see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id.
    pub job_id: JobId,
    /// Where it is in its life.
    pub status: JobState,
    /// A name for people.
    pub name: String,
    /// The worker of the current or last attempt.
    pub worker_id: Option<WorkerId>,
    /// That worker's host name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The command, lines separated by `\n`.
    pub command: String,
    /// What the zip was called.
    pub filename: Option<String>,
    /// Address of the zip, relative to the coordinator.
    pub file_url: Option<String>,
    /// The end of what the last attempt wrote to its standard output, at most 64 KiB, invalid
    /// UTF-8 replaced; only where one job is asked for. `GET /api/jobs/output` has all of it.
    #[serde(default)]
    pub stdout: Option<String>,
    /// The same for standard error.
    #[serde(default)]
    pub stderr: Option<String>,
    /// Exit code of the last line that ran, 128 and its number after a signal; absent while it runs and when it
    /// could not be run.
    pub exit_code: Option<i32>,
    /// Why it failed or was put back, for a person.
    pub error_message: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it reached its last state.
    pub completed_at: Option<Timestamp>,
    /// Number of the current or last attempt; 0 before the first.
    pub attempt: u32,
    /// Every attempt so far, oldest first; only where one job is asked for.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// The files it brought home.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Patterns of the files to bring home.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Names of its environment variables; the values are given to the worker only.
    #[serde(default)]
    pub env_names: Vec<String>,
    /// The program and its arguments, when it runs without a shell; `command` shows the same.
    #[serde(default)]
    pub argv: Vec<String>,
    /// What reads the lines; absent for the usual one of the PC's system.
    #[serde(default)]
    pub shell: Option<Shell>,
    /// What follows a line that failed.
    #[serde(default)]
    pub on_error: OnError,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// How often the command is tried again when it fails by itself.
    #[serde(default)]
    pub retries: u32,
    /// How long the command may run, in seconds.
    #[serde(default)]
    pub timeout_secs: Option<u32>,
    /// How long the job may wait for its first PC, in seconds.
    #[serde(default)]
    pub max_queue_secs: Option<u32>,
    /// What a PC must be and have.
    #[serde(default)]
    pub requirements: Requirements,
    /// What happens when its worker falls silent.
    #[serde(default)]
    pub on_worker_lost: OnWorkerLost,
    /// What happens when the PC's owner comes back.
    #[serde(default)]
    pub on_owner_return: OnOwnerReturn,
    /// Whether it waits until somebody releases it.
    #[serde(default)]
    pub held: bool,
    /// How many jobs it still waits for.
    #[serde(default)]
    pub blocked_by: u32,
    /// The jobs it has to wait for that have not completed; only where one job is asked for.
    #[serde(default)]
    pub after: Vec<JobId>,
    /// When it may be tried again, while it waits for that.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// The array it belongs to.
    #[serde(default)]
    pub array_id: Option<JobId>,
    /// Its number in the array, from 0 on.
    #[serde(default)]
    pub index: Option<u32>,
    /// How the jobs of this array stand, when it is one.
    #[serde(default)]
    pub array: Option<ArrayCounts>,
    /// The job whose submission it repeats.
    #[serde(default)]
    pub resubmitted_from: Option<JobId>,
    /// Name of the token that submitted it.
    pub submitted_by: String,
    /// Whether a running job has been asked to end.
    #[serde(default)]
    pub cancel_requested: bool,
}

/// How the jobs of an array stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArrayCounts {
    /// How many it has.
    pub count: u32,
    /// Waiting for a PC, to begin or to be tried again.
    pub pending: u32,
    /// Leased to a worker.
    pub running: u32,
    /// Ended well.
    pub completed: u32,
    /// Ended badly.
    pub failed: u32,
    /// Ended by a person.
    pub cancelled: u32,
}

/// One try at a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// 1 for the first; the fencing token of every write about it.
    pub attempt: u32,
    /// Who ran it.
    pub worker_id: WorkerId,
    /// That worker's host name.
    pub hostname: String,
    /// When the worker claimed the job.
    pub started_at: Timestamp,
    /// When it ended, or was given up.
    pub ended_at: Option<Timestamp>,
    /// How it ended; absent while it runs.
    pub ending: Option<AttemptEnding>,
    /// Exit code of the last line that ran.
    pub exit_code: Option<i32>,
    /// What went wrong, for a person.
    pub error_message: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum AttemptEnding {
    /// Every line ended with 0.
    Succeeded,
    /// A line ended with another code.
    CommandFailed,
    /// The command ran longer than it may.
    TimedOut,
    /// The job cannot be run anywhere: its archive is refused, its program does not exist.
    Refused,
    /// This worker could not run it; another one may.
    CouldNotRun,
    /// The worker gave it back: it is stopping, or its owner came back.
    GivenBack,
    /// The worker fell silent.
    WorkerLost,
    /// A person cancelled the job.
    Cancelled,
}

impl AttemptEnding {
    const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::CommandFailed,
        Self::TimedOut,
        Self::Refused,
        Self::CouldNotRun,
        Self::GivenBack,
        Self::WorkerLost,
        Self::Cancelled,
    ];

    /// The wire form, which the store keeps too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::CommandFailed => "commandFailed",
            Self::TimedOut => "timedOut",
            Self::Refused => "refused",
            Self::CouldNotRun => "couldNotRun",
            Self::GivenBack => "givenBack",
            Self::WorkerLost => "workerLost",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the form that [`AttemptEnding::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.name() == name)
    }
}

/// Names one attempt: what every write of a worker carries and the store checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseKey {
    /// The job.
    pub job_id: JobId,
    /// The fencing token.
    pub attempt: u32,
}

/// Asks for one job: query of `GET /api/jobs/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// The job.
    pub job_id: JobId,
}

/// Chooses jobs: query of `GET /api/jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobFilter {
    /// Only jobs in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<JobState>,
    /// Only jobs whose current or last attempt was on this worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// The jobs of this array, by their number; otherwise an array is listed as one job and its jobs are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_id: Option<JobId>,
    /// At most this many, 1 to 500; 50 unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the last page ended: its `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<JobId>,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobList {
    /// The jobs, without their output and attempts.
    pub jobs: Vec<Job>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default)]
    pub next: Option<JobId>,
    /// How many jobs there are in each state, over all pages and whatever the filter.
    pub counts: JobCounts,
}

/// How many jobs there are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobCounts {
    /// Waiting for a worker.
    pub pending: u64,
    /// Leased to a worker.
    pub running: u64,
    /// Ended well.
    pub completed: u64,
    /// Ended badly.
    pub failed: u64,
    /// Ended by a person.
    pub cancelled: u64,
}

/// Names a job or a whole array: body of `POST /api/jobs/cancel`, `/hold`, `/release` and `/resubmit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobRef {
    /// The job.
    pub job_id: JobId,
}
