//! What passes between the coordinator and a worker about jobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{AttemptEnding, JobState, LeaseKey, Network, OnError, OnOwnerReturn, Shell};
use crate::{
    files::Artifact,
    ids::{Digest, JobId},
    problem::Problem,
    workers::SandboxLevel,
};

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
    /// The lines to run, in order.
    pub command: String,
    /// The program and its arguments, to be run without a shell instead of the lines.
    #[serde(default)]
    pub argv: Vec<String>,
    /// What reads the lines; absent for the usual one of the system.
    #[serde(default)]
    pub shell: Option<Shell>,
    /// What follows a line that failed.
    #[serde(default)]
    pub on_error: OnError,
    /// How long the command may run, in seconds.
    #[serde(default)]
    pub timeout_secs: Option<u32>,
    /// What the zip was called.
    #[serde(default)]
    pub filename: Option<String>,
    /// Address of the zip, relative to the coordinator.
    #[serde(default)]
    pub file_url: Option<String>,
    /// Digest of the zip, to check what arrived and to keep it for the next time.
    #[serde(default)]
    pub file_digest: Option<Digest>,
    /// Environment variables of the command; in an array `LULL_INDEX` and `LULL_ITEM` are among them.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Patterns of the files to bring home.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// The least isolation it may run under.
    #[serde(default)]
    pub min_sandbox: SandboxLevel,
    /// What it may reach of the network.
    #[serde(default)]
    pub network: Network,
    /// What happens when the PC's owner comes back.
    #[serde(default)]
    pub on_owner_return: OnOwnerReturn,
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
    /// Exit code of the last line that ran, or with `onError: continue` of the last that failed; 128 and its number
    /// after a signal.
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

/// Most results one request may carry.
pub const RESULTS_MAX: usize = 64;

/// Several results in one request: the other body of `POST /api/jobs/submit-result`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitResults {
    /// At most 64. Each is recorded or refused by itself.
    pub results: Vec<SubmitResult>,
}

/// Body of `POST /api/jobs/submit-result`: one result, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Results {
    /// Several.
    Several(SubmitResults),
    /// One.
    One(SubmitResult),
}

/// What became of each of several results: reply to [`SubmitResults`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultReplies {
    /// One for each result, in the same order.
    pub replies: Vec<ResultOutcome>,
}

/// What became of one of several results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ResultOutcome {
    /// It is recorded, now or by the same report before.
    Recorded(ResultReply),
    /// It changed nothing; the same problem that it would have got alone.
    Refused(Problem),
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
    /// The PC's owner came back, or paused Lull; the job moves.
    OwnerReturned,
    /// The worker was restarted and found this attempt cut off.
    WorkerRestarted,
    /// A person cancelled the job and its tree is dead.
    Cancelled,
    /// The command ran longer than it may and its tree is dead; counts as a failure of its own.
    TimedOut,
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

impl FailureKind {
    /// How the attempt ended, by what its worker reports.
    #[must_use]
    pub const fn ending(self) -> AttemptEnding {
        match self {
            Self::WorkerStopping | Self::OwnerReturned | Self::WorkerRestarted => {
                AttemptEnding::GivenBack
            }
            Self::Cancelled => AttemptEnding::Cancelled,
            Self::TimedOut => AttemptEnding::TimedOut,
            Self::InputRefused | Self::OutputsRefused | Self::ExecFailed => AttemptEnding::Refused,
            Self::SandboxUnavailable
            | Self::InputUnavailable
            | Self::DiskFull
            | Self::Internal
            | Self::Unknown => AttemptEnding::CouldNotRun,
        }
    }
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
