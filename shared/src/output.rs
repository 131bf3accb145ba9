//! A command's output on the wire: appended by offset, followed by event.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ids::JobId,
    jobs::{AttemptEnding, Job},
};

/// Most bytes one `stream-output` request may append.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// One of the two streams a command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The wire form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Where the bytes in the body go: query of `POST /api/jobs/stream-output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct AppendQuery {
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: u32,
    /// Which stream.
    #[param(inline)]
    pub stream: Stream,
    /// Offset of the first byte of the body in that stream. Bytes the coordinator already has are
    /// skipped; a gap is an `offset_mismatch`.
    pub offset: u64,
}

/// How far the stream is now stored: reply to `POST /api/jobs/stream-output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppendReply {
    /// The offset the next bytes must carry.
    pub next_offset: u64,
    /// A person cancelled the job: end it and report `cancelled`.
    pub cancel: bool,
}

/// How output is wanted: query of `GET /api/jobs/output`.
///
/// With `Accept: text/event-stream` the reply is a stream of [`OutputEvent`]s from the first attempt's
/// first byte (or after `Last-Event-ID`) to the job's end. Otherwise it is the bytes of one stream of one
/// attempt as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// The job.
    pub job_id: JobId,
    /// Bytes only: which stream; standard output unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stream: Option<Stream>,
    /// Bytes only: which attempt; the last one unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Events only: `raw` (base64 of the bytes as they came) or `terminal` (text that is safe to show).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub view: Option<OutputView>,
}

/// In which form output events carry their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutputView {
    /// Base64 of the bytes as they came.
    #[default]
    Raw,
    /// Text that is safe to show on a terminal: colours, newlines and simple erases only.
    Terminal,
}

/// One thing that happened to a job that is being followed. The SSE event name is the `event` field; the
/// SSE id resumes after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum OutputEvent {
    /// An attempt began; what follows is its output.
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
        /// Base64 with `view=raw`, text with `view=terminal`.
        data: String,
    },
    /// The stream was larger than is kept: this many bytes between its head and its tail are gone.
    Dropped {
        /// The attempt.
        attempt: u32,
        /// Which stream.
        stream: Stream,
        /// How many bytes.
        bytes: u64,
    },
    /// An attempt ended without ending the job; another one follows.
    // Named again for the API document, which does not read `rename_all_fields`.
    #[serde(rename_all = "camelCase")]
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
