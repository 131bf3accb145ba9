//! Why a job waits, in words and numbers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::JobState;
use crate::ids::JobId;

/// Why a job waits: reply to `GET /api/jobs/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The job.
    pub job_id: JobId,
    /// Where it is in its life.
    pub status: JobState,
    /// What it waits for first; absent when it does not wait.
    pub reason: Option<WaitReason>,
    /// The same for a person: sentences, the most important first.
    pub sentences: Vec<String>,
    /// The pool as this job sees it; only while it waits for a PC.
    pub pool: Option<Pool>,
    /// What comes before it; only while it waits for a PC.
    pub ahead: Option<Ahead>,
}

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum WaitReason {
    /// A person held it.
    Held,
    /// Jobs that must complete first.
    Blocked,
    /// The pause before it is tried again.
    Backoff,
    /// No PC of the pool meets what it asks for.
    NoneFits,
    /// The PCs that meet it take no work now: offline, their owners there, draining, set aside.
    NoneAvailable,
    /// The PCs that meet it are busy.
    AllBusy,
    /// Other jobs come first.
    OthersFirst,
    /// Nothing: it is about to start.
    Starting,
}

/// The pool as one job sees it, in numbers of PCs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// All of them.
    pub workers: u32,
    /// Those that meet what the job asks for; the following are parts of these.
    pub fitting: u32,
    /// With a free slot.
    pub free: u32,
    /// With all slots taken.
    pub busy: u32,
    /// That take no work because of their owner.
    pub suspended: u32,
    /// That are not heard of.
    pub offline: u32,
    /// That end what runs and take nothing new.
    pub draining: u32,
    /// That are set aside because they fail everybody's jobs.
    pub sick: u32,
    /// That failed this job before and get it again only when no other can take it.
    pub failed_before: u32,
}

/// What comes before a job, in numbers of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ahead {
    /// Of the same submitter.
    pub own: u64,
    /// Of others: those of higher priority, and those that fair turns put first.
    pub others: u64,
}
