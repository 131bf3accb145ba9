//! Workers on the wire: enrolling, heartbeats, and what a worker can do and is doing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{Digest, WorkerId},
    jobs::{LeaseKey, Network},
    time::Timestamp,
};

/// How much a job is kept apart from the PC's owner. Ordered: more is safer.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum SandboxLevel {
    /// A plain process tree that is surely killed; it can read what the worker's account can.
    L0,
    /// An account or token of its own; other people's files may still be readable.
    L1,
    /// Reads and reaches nothing of the owner's; other processes may be visible.
    #[default]
    L2,
    /// The same with process, network and mount namespaces of its own and limits.
    L3,
}

impl SandboxLevel {
    /// All levels, weakest first.
    pub const ALL: [Self; 4] = [Self::L0, Self::L1, Self::L2, Self::L3];

    /// The wire form, which the store keeps too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L0 => "l0",
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::L3 => "l3",
        }
    }

    /// Reads the form that [`SandboxLevel::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum WorkerState {
    /// Waits for a job.
    Ready,
    /// Runs at least one job.
    Working,
    /// Takes nothing for now; `reason` says why.
    Suspended,
    /// Ends what runs, takes nothing new, then goes.
    Draining,
    /// Has not been heard of for 30 s, or said goodbye.
    Offline,
    /// A state this version does not know.
    #[serde(other)]
    Unknown,
}

/// Why a worker takes no work. The same enum from the policy up to the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum SuspendReason {
    /// The owner pressed pause.
    PausedByOwner,
    /// Somebody used keyboard or mouse a short while ago.
    OwnerActive,
    /// Other programs keep the processor busy.
    CpuBusy,
    /// The PC runs on its battery.
    OnBattery,
    /// Nobody can tell whether the owner is there, so they are taken to be.
    IdleTimeUnknown,
    /// A reason this version does not know.
    #[serde(other)]
    Unknown,
}

/// One PC of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Its id.
    pub worker_id: WorkerId,
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
    /// What it is doing.
    pub status: WorkerState,
    /// Why it takes no work, when suspended.
    #[serde(default)]
    pub reason: Option<SuspendReason>,
    /// When it was last heard of.
    pub last_heartbeat: Timestamp,
    /// When it joined.
    pub registered_at: Timestamp,
    /// Room for this many attempts at once.
    pub slots: u32,
    /// The attempts it holds.
    #[serde(default)]
    pub running: Vec<LeaseKey>,
    /// How well it isolates jobs, by its own test.
    pub sandbox_level: SandboxLevel,
    /// Labels that jobs may ask for.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// What its owner lets jobs reach of the network.
    #[serde(default)]
    pub network: Network,
    /// Whether it is to end what runs and take nothing new.
    #[serde(default)]
    pub draining: bool,
    /// Since when it is set aside because it fails everybody's jobs; an administrator releases it, or a restart.
    #[serde(default)]
    pub sick_since: Option<Timestamp>,
}

/// The PCs of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerList {
    /// By host name.
    pub workers: Vec<Worker>,
}

/// What a worker says of itself when it joins and at each start: body of `POST /api/workers/register`.
///
/// The first time it goes out with the join code's secret as the bearer token and carries `workerToken`;
/// the coordinator keeps only that token's hash. Sent again after a lost reply, it changes nothing and
/// spends no second use of the code. Later it goes out with the worker token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisterWorker {
    /// The id, made on the PC.
    pub worker_id: WorkerId,
    /// The secret the worker made for itself, as `lullw_<worker id>_<secret>`; only when joining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_token: Option<String>,
    /// Its name in the network.
    #[schema(max_length = 255)]
    pub hostname: String,
    /// `linux`, `windows` or `macos`.
    #[schema(max_length = 32)]
    pub os: String,
    /// `x86_64`, `aarch64`, …
    #[schema(max_length = 32)]
    pub arch: String,
    /// Logical processors.
    pub cpu_count: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Version of Lull on it.
    #[schema(max_length = 64)]
    pub version: String,
    /// Room for this many attempts at once.
    pub slots: u32,
    /// How well it isolates jobs.
    pub sandbox_level: SandboxLevel,
    /// Labels that jobs may ask for, at most 32.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// What the owner lets jobs reach of the network.
    #[serde(default)]
    pub network: Network,
    /// Inputs it has at hand, so that jobs with these come here first; at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cached_inputs: Vec<Digest>,
}

/// Ends or resumes giving a PC new jobs: body of `POST /api/workers/drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainWorker {
    /// The PC.
    pub worker_id: WorkerId,
    /// True to let it end what runs and take nothing new; false to let it take jobs again.
    pub drain: bool,
}

/// Names a PC: body of `POST /api/workers/release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerRef {
    /// The PC.
    pub worker_id: WorkerId,
}

/// How the worker is to behave: reply to `POST /api/workers/register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisterReply {
    /// The id it was registered under.
    pub worker_id: WorkerId,
    /// Send a heartbeat this often, in milliseconds.
    pub heartbeat_ms: u64,
    /// Leases last this long without a renewal, in milliseconds.
    pub lease_ms: u64,
    /// Version of the coordinator.
    pub coordinator_version: String,
}

/// A worker is alive, and how it is: body of `POST /api/workers/heartbeat`. Renews the leases it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The sender; must be the token's own.
    pub worker_id: WorkerId,
    /// What it is doing; `offline` says goodbye.
    pub status: WorkerState,
    /// Why it takes no work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SuspendReason>,
    /// The attempts it runs or still has to report; their leases are renewed.
    #[serde(default)]
    pub running: Vec<LeaseKey>,
}

/// What the coordinator thinks of the attempts that the heartbeat named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatReply {
    /// Leases that are not the worker's any more: stop them, report nothing.
    #[serde(default)]
    pub lost: Vec<LeaseKey>,
    /// Attempts whose job a person cancelled: end them and report `cancelled`.
    #[serde(default)]
    pub cancel: Vec<LeaseKey>,
    /// An administrator wants this PC to end what runs and take nothing new.
    #[serde(default)]
    pub drain: bool,
}
