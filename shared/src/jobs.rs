//! Jobs on the wire: submitting them, claiming them, reporting how they ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    files::Artifact,
    ids::{Digest, JobId, WorkerId},
    time::Timestamp,
    workers::SandboxLevel,
};

/// Longest command text accepted, in bytes.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Most environment variables one job may set.
pub const ENV_VARS_MAX: usize = 256;
/// Most bytes that all names and values of a job's environment may take together.
pub const ENV_BYTES_MAX: usize = 64 * 1024;
/// Most output patterns one job may name.
pub const OUTPUTS_MAX: usize = 64;

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
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// What becomes of a job whose worker fell silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnWorkerLost {
    /// Another worker runs it from the beginning: at least once.
    #[default]
    Retry,
    /// It fails: at most once, for commands with effects outside their folder.
    Fail,
}

/// A submission: the body of `POST /api/jobs/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateJob {
    /// The command: one line or several, run in order in one folder until one fails.
    #[schema(example = "python3 render.py --frames 1-10")]
    pub command: String,
    /// A name for people; the first line of the command stands in for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// An uploaded zip (`POST /api/files/upload`) that is unpacked into the job's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<Digest>,
    /// What the zip was called, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Environment variables of the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Patterns of the files to bring home, relative to the job's folder, for example `out/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// The least isolation the command may run under.
    #[serde(default)]
    pub min_sandbox: SandboxLevel,
    /// What happens when the worker falls silent.
    #[serde(default)]
    pub on_worker_lost: OnWorkerLost,
    /// Names this submission: the same key with the same body gives the same job, so a submission
    /// whose reply was lost can be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub idempotency_key: Option<String>,
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
    /// Exit code of the last line that ran; absent while it runs and when a signal ended it.
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
    /// The least isolation it may run under.
    #[serde(default)]
    pub min_sandbox: SandboxLevel,
    /// What happens when its worker falls silent.
    #[serde(default)]
    pub on_worker_lost: OnWorkerLost,
    /// Name of the token that submitted it.
    pub submitted_by: String,
    /// Whether a running job has been asked to end.
    #[serde(default)]
    pub cancel_requested: bool,
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
    const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::CommandFailed,
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

/// Ends a job: body of `POST /api/jobs/cancel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelJob {
    /// The job.
    pub job_id: JobId,
}

/// A worker asks for work: query of `GET /api/jobs/get-job`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ClaimQuery {
    /// Seconds to wait for a job when there is none, 0 to 60.
    #[serde(default)]
    pub wait: u32,
    /// The most jobs to take, at least 1: the worker's free slots.
    #[serde(default)]
    pub max: Option<u32>,
}

/// The jobs a worker was given. Empty when none came in time: an idle pool is not an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReply {
    /// One entry for each claimed job.
    pub jobs: Vec<Assignment>,
    /// How long the request had waited at the coordinator when the claim was made, in milliseconds. The
    /// leases began no earlier than that long after the worker sent it.
    #[serde(default)]
    pub waited_ms: u64,
}

/// All a worker needs to run one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The job.
    pub job_id: JobId,
    /// Number of this attempt; goes out with every write about it.
    pub attempt: u32,
    /// How long the lease lasts without a renewal, in milliseconds. The worker counts from when it sent the
    /// request that brought it, plus the reply's `waitedMs`: never later than the coordinator does.
    pub lease_ms: u64,
    /// A name for people.
    pub name: String,
    /// The lines to run, in order, until one fails.
    pub command: String,
    /// What the zip was called.
    #[serde(default)]
    pub filename: Option<String>,
    /// Address of the zip, relative to the coordinator.
    #[serde(default)]
    pub file_url: Option<String>,
    /// Digest of the zip, to check what arrived and to keep it for the next time.
    #[serde(default)]
    pub file_digest: Option<Digest>,
    /// Environment variables of the command.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Patterns of the files to bring home.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// The least isolation it may run under.
    #[serde(default)]
    pub min_sandbox: SandboxLevel,
    /// Name of the token that submitted it, for the owner's history.
    #[serde(default)]
    pub submitted_by: String,
}

impl Assignment {
    /// The attempt's name on every write.
    #[must_use]
    pub const fn key(&self) -> LeaseKey {
        LeaseKey { job_id: self.job_id, attempt: self.attempt }
    }
}

/// A worker reports that the command ran: body of `POST /api/jobs/submit-result`.
///
/// Sending the same report again gives the same reply, so a lost reply costs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmitResult {
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: u32,
    /// Exit code of the last line that ran; absent when a signal ended it.
    pub exit_code: Option<i32>,
    /// What went wrong beyond the exit code, for a person: `line 2 was ended by signal 9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// The files brought home, uploaded before.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// The last bytes of output, so that a short job needs no request of its own for them.
    #[serde(default)]
    pub output: Vec<OutputPart>,
}

/// A piece of output that travels inside another request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputPart {
    /// Which stream.
    pub stream: crate::output::Stream,
    /// Offset of its first byte in that stream.
    pub offset: u64,
    /// The bytes, in base64.
    pub data: String,
}

/// Why a worker could not run an attempt, or stopped it: none of it the command's own doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The worker is shutting down; the job goes to another one and loses nothing.
    WorkerStopping,
    /// The PC's owner came back and stayed, or paused Lull; the job moves.
    OwnerReturned,
    /// The worker was restarted and found this attempt cut off.
    WorkerRestarted,
    /// A person cancelled the job and its tree is dead.
    Cancelled,
    /// This PC cannot isolate the job as much as it asks for.
    SandboxUnavailable,
    /// The input could not be fetched, or did not have its digest.
    InputUnavailable,
    /// The archive breaks a rule; it does so everywhere, so the job fails.
    InputRefused,
    /// An output breaks a rule (a link out of the folder, too large); the job fails.
    OutputsRefused,
    /// The program of a line does not exist or cannot be started; the job fails.
    ExecFailed,
    /// The PC's disk has no room for it.
    DiskFull,
    /// A defect in the worker.
    Internal,
    /// A kind this version does not know; treated as `internal`.
    #[serde(other)]
    Unknown,
}

/// A worker reports a failure that is not the command's own: body of `PUT /api/jobs/submit-result`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportFailure {
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: u32,
    /// Why; decides whether the job is tried elsewhere.
    pub kind: FailureKind,
    /// The same for a person, with what and where.
    pub error_message: String,
}

/// What became of the job: reply to both forms of `submit-result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultReply {
    /// The job.
    pub job_id: JobId,
    /// Its state after the report.
    pub status: JobState,
}
