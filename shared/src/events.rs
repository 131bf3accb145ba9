//! What changes in the pool, as it changes: `GET /api/events`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{JobId, WorkerId},
    jobs::JobState,
};

/// One change. The SSE event name is the `event` field; the SSE id resumes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum PoolEvent {
    /// What happened before is not known any more, or the stream begins: read everything anew.
    Reset,
    /// A job was accepted or changed.
    // Named again for the API document, which does not read `rename_all_fields`.
    #[serde(rename_all = "camelCase")]
    Job {
        /// Which.
        job_id: JobId,
        /// Its state by now.
        status: JobState,
        /// Number of its current or last attempt.
        attempt: u32,
        /// The array it belongs to.
        array_id: Option<JobId>,
    },
    /// A PC joined, or its state changed.
    #[serde(rename_all = "camelCase")]
    Worker {
        /// Which.
        worker_id: WorkerId,
    },
}
