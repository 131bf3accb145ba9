//! Files on the wire: named by their SHA-256, uploaded once, brought home as artifacts.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::ids::Digest;

/// Header of an upload: the SHA-256 of the body, 64 hex digits. What arrives must have it.
pub const DIGEST_HEADER: &str = "x-lull-digest";

/// A stored file: reply to `POST /api/files/upload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// Its name in the store.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size_bytes: u64,
}

/// A named output of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its name for people, for example `outputs.zip`: no path, no control characters.
    #[schema(max_length = 255)]
    pub name: String,
    /// Its bytes: `GET /api/files/{digest}`.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size_bytes: u64,
}

/// Under which name a download is offered: query of `GET /api/files/{digest}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct DownloadQuery {
    /// The file name for the browser's save dialog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
