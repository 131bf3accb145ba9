//! What the desktop app tells its own window about this PC. Travels by IPC, never by network.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{JobId, WorkerId},
    jobs::AttemptEnding,
    time::Timestamp,
    workers::{SandboxLevel, SuspendReason, WorkerState},
};

/// Whether and how this PC is part of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Connection {
    /// No join code has been entered yet.
    NotJoined,
    /// The coordinator is being asked.
    Connecting {
        /// Where it is expected.
        address: String,
    },
    /// The coordinator answered the last request.
    Connected {
        /// Where it answers.
        address: String,
    },
    /// The coordinator does not answer; the worker keeps trying.
    Unreachable {
        /// Where it should answer.
        address: String,
        /// What went wrong, for a person.
        error: String,
    },
    /// The coordinator refused this PC; a person has to act.
    Refused {
        /// Where it answers.
        address: String,
        /// Why, for a person.
        error: String,
    },
}

/// This PC as its worker sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalStatus {
    /// Its id in the pool.
    pub worker_id: WorkerId,
    /// Its name in the network.
    pub hostname: String,
    /// Link to the coordinator.
    pub connection: Connection,
    /// What the worker is doing; `offline` while it is not joined.
    pub state: WorkerState,
    /// Why it takes no work.
    #[serde(default)]
    pub reason: Option<SuspendReason>,
    /// Room for this many attempts at once.
    pub slots: u32,
    /// What runs here now.
    #[serde(default)]
    pub running: Vec<LocalAttempt>,
    /// Whether the owner pressed pause.
    pub paused: bool,
    /// Seconds since the last input; absent when it cannot be told.
    #[serde(default)]
    pub idle_secs: Option<u64>,
    /// Share of the processor that other programs use, 0 to 100.
    #[serde(default)]
    pub others_cpu_percent: Option<u8>,
    /// Whether the PC runs on its battery; absent when it has none.
    #[serde(default)]
    pub on_battery: Option<bool>,
    /// How well jobs are isolated here, by the test at start.
    pub sandbox_level: SandboxLevel,
    /// What that test found, for a person.
    pub sandbox_detail: String,
    /// Version of Lull.
    pub version: String,
}

/// One attempt on this PC, running or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalAttempt {
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The job's name.
    pub name: String,
    /// What was run, lines separated by `\n`.
    pub command: String,
    /// For whom.
    pub submitted_by: String,
    /// When it began here.
    pub started_at: Timestamp,
    /// When it ended; absent while it runs.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    #[serde(default)]
    pub ending: Option<AttemptEnding>,
    /// Exit code of the last line that ran.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// What went wrong, for a person.
    #[serde(default)]
    pub error_message: Option<String>,
}

/// What ran on this PC, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalHistory {
    /// The attempts.
    pub attempts: Vec<LocalAttempt>,
}
