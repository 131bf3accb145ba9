//! What a submission may ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use utoipa::ToSchema;

use crate::{
    ids::{Digest, JobId},
    workers::SandboxLevel,
};

/// Longest command text accepted, in bytes; arguments given one by one count together.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Most environment variables one job may set.
pub const ENV_VARS_MAX: usize = 256;
/// Most bytes that all names and values of a job's environment may take together.
pub const ENV_BYTES_MAX: usize = 64 * 1024;
/// Most output patterns one job may name.
pub const OUTPUTS_MAX: usize = 64;
/// The lowest and highest priority.
pub const PRIORITIES: std::ops::RangeInclusive<i32> = -100..=100;
/// Most tries after the first that a job may ask for.
pub const RETRIES_MAX: u32 = 100;
/// Longest time limit a job may ask for, in seconds: 30 days.
pub const SECS_MAX: u32 = 30 * 24 * 60 * 60;
/// Most jobs that one job may wait for.
pub const AFTER_MAX: usize = 1000;
/// Most jobs of one array.
pub const ARRAY_MAX: u32 = 100_000;
/// Most bytes that all items of an array may take together.
pub const ITEMS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most labels a job may ask for, or a PC may have.
pub const LABELS_MAX: usize = 32;

/// What becomes of a job whose worker fell silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnWorkerLost {
    /// Another worker runs it from the beginning: at least once.
    #[default]
    Retry,
    /// It fails: at most once, for commands with effects outside their folder.
    Fail,
}

/// What becomes of a job when the owner of its PC comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnOwnerReturn {
    /// It is frozen and goes on when they leave; if they stay, it moves to another PC.
    #[default]
    Pause,
    /// It moves to another PC at once.
    Move,
}

/// What follows a line that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnError {
    /// Nothing: the job ends with the line's exit code.
    #[default]
    Stop,
    /// The next line; the job ends with the exit code of the last line that failed.
    Continue,
}

/// What reads the lines of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Shell {
    /// The POSIX shell.
    Sh,
    /// The Windows command interpreter.
    Cmd,
    /// PowerShell.
    Powershell,
}

/// What a job may reach of the network.
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
pub enum Network {
    /// Nothing.
    #[default]
    None,
    /// The internet but not the office's own network, where the PC's owner grants it.
    Internet,
}

/// What a PC must be and have to run a job. Jobs with equal requirements stand in one line.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Requirements {
    /// `linux`, `windows`, `macos`, or `unix` for both but Windows; any unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32)]
    pub os: Option<String>,
    /// `x86_64`, `aarch64`, …; any unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32)]
    pub arch: Option<String>,
    /// At least this many logical processors.
    pub min_cpus: u32,
    /// At least this much memory, in bytes.
    pub min_memory_bytes: u64,
    /// Labels that the PC must have, all of them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// The least isolation the command may run under.
    pub min_sandbox: SandboxLevel,
    /// What the command may reach of the network.
    pub network: Network,
}

/// A submission: the body of `POST /api/jobs/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateJob {
    /// The command: one line or several, run in order in one folder until one fails.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "python3 render.py --frames 1-10")]
    pub command: String,
    /// A program and its arguments, run as they are and without a shell; instead of `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// What reads the lines; the usual one of the PC's system unless told. The job then runs only where it exists:
    /// `sh` on Linux and macOS, `cmd` and `powershell` on Windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Shell>,
    /// What follows a line that failed.
    #[serde(default)]
    pub on_error: OnError,
    /// A name for people; the first line of the command stands in for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub name: Option<String>,
    /// An uploaded zip (`POST /api/files/upload`) that is unpacked into the job's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<Digest>,
    /// What the zip was called, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Environment variables of the command.
    #[serde(default, deserialize_with = "distinct", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Patterns of the files to bring home, relative to the job's folder, for example `out/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Higher goes first, whoever submitted it: −100 to 100.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100)]
    pub priority: i32,
    /// How often the command is tried again when it fails by itself, after growing pauses. A PC that falls silent or
    /// gives the job back spends none of these.
    #[serde(default)]
    #[schema(maximum = 100)]
    pub retries: u32,
    /// The command may run this long, in seconds; then all its processes are ended, as a failure of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub timeout_secs: Option<u32>,
    /// The job may wait this long for its first PC, in seconds; then it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_queue_secs: Option<u32>,
    /// What a PC must be and have.
    #[serde(default)]
    pub requirements: Requirements,
    /// What happens when the worker falls silent.
    #[serde(default)]
    pub on_worker_lost: OnWorkerLost,
    /// What happens when the PC's owner comes back.
    #[serde(default)]
    pub on_owner_return: OnOwnerReturn,
    /// Whether it waits until somebody releases it.
    #[serde(default)]
    pub hold: bool,
    /// Jobs that must have completed before this one runs; it fails when one of them does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<JobId>,
    /// Makes an array of this many jobs out of one submission. Each finds its number, from 0 on, in `LULL_INDEX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub count: Option<u32>,
    /// Makes an array with a job for each item. Each finds its item in `LULL_ITEM` and its number in `LULL_INDEX`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// Names this submission: the same key with the same body gives the same job, so a submission
    /// whose reply was lost can be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub idempotency_key: Option<String>,
}

/// Reads names and values, and refuses a name that stands there twice: readers differ in which one they take.
fn distinct<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Distinct;

    impl<'de> Visitor<'de> for Distinct {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of names and values")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut read = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                if read.contains_key(&name) {
                    return Err(A::Error::custom(format!("duplicate name {name:?}")));
                }
                read.insert(name, value);
            }
            Ok(read)
        }
    }

    from.deserialize_map(Distinct)
}
