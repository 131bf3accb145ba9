//! `POST /api/execute`: a file and commands in one multipart form, as the browser of the origin sent them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::JobId;

/// Where the commands run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExecuteMode {
    /// On an idle PC of the pool: the reply is [`ExecuteReply`].
    #[default]
    Distributed,
    /// On the coordinator's own machine, where that is allowed: the reply streams output events.
    Direct,
}

/// The multipart form of `POST /api/execute`.
#[derive(Clone, Debug, ToSchema)]
pub struct ExecuteForm {
    /// A zip to unpack into the job's folder. Comes last, so that a refusal costs no upload.
    #[schema(value_type = Option<String>, format = Binary)]
    pub file: Option<Vec<u8>>,
    /// The command lines.
    pub commands: String,
    /// `distributed` unless told.
    pub mode: Option<ExecuteMode>,
    /// Patterns of the files to bring home, one a line.
    pub outputs: Option<String>,
}

/// The job that was made of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecuteReply {
    /// Its id: follow it with `GET /api/jobs/output`.
    pub job_id: JobId,
}
