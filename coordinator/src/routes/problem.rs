//! Errors on the wire. Handlers return `ApiError`; clients receive an RFC 9457 problem document.

use std::{any::Any, sync::Arc};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, Request, rejection::QueryRejection},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use lull_shared::problem::{Problem, ProblemKind};
use serde::de::DeserializeOwned;

use crate::{blobs::BlobError, routes::body, store::StoreError};

/// Every way a request can fail: refused, in terms of the caller, or failed, which is ours to look into.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The caller can do something about it; the problem says what.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The coordinator could not do its part.
    #[error("{}", .0.title())]
    Failed(ProblemKind, #[source] anyhow::Error),
}

impl ApiError {
    /// A refusal of this kind, with what exactly is wrong.
    #[must_use]
    pub fn refused(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(Problem::new(kind).with_detail(detail)))
    }

    /// The request cannot be read, or a value is out of range.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::refused(ProblemKind::Invalid, detail)
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::refused(ProblemKind::NotFound, format!("no such {what}"))
    }

    /// A defect, or a world in which nothing more can be done.
    #[must_use]
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(ProblemKind::Internal, error.into())
    }

    /// The problem document of this error. A cause on our side is for our log, not for the caller.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => (**problem).clone(),
            Self::Failed(kind, _) => Problem::new(*kind),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::not_found(what),
            StoreError::LeaseLost => ProblemKind::LeaseLost.into(),
            StoreError::Conflict(_) => Self::refused(ProblemKind::Conflict, error.to_string()),
            StoreError::KeyReused => ProblemKind::KeyReused.into(),
            StoreError::QueueFull { .. } => {
                Self::refused(ProblemKind::QueueFull, error.to_string())
            }
            StoreError::OffsetMismatch { next } => {
                let mut problem =
                    Problem::new(ProblemKind::OffsetMismatch).with_detail(error.to_string());
                problem.next_offset = Some(next);
                Self::Refused(Box::new(problem))
            }
            StoreError::FileMissing(_) => {
                Self::refused(ProblemKind::FileMissing, error.to_string())
            }
            StoreError::JoinRefused => ProblemKind::JoinRefused.into(),
            StoreError::Invalid(detail) => Self::invalid(detail),
            StoreError::DiskFull(_) => Self::Failed(ProblemKind::DiskFull, error.into()),
            StoreError::Unreachable(_) => Self::Failed(ProblemKind::Unavailable, error.into()),
            StoreError::Corrupt(_)
            | StoreError::NewerSchema { .. }
            | StoreError::UpgradeFailed(_)
            | StoreError::FolderInUse(_) => Self::internal(error),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound => Self::not_found("file"),
            BlobError::DiskFull(_) => Self::Failed(ProblemKind::DiskFull, error.into()),
            BlobError::Store(_) => Self::internal(error),
        }
    }
}

impl From<ProblemKind> for ApiError {
    fn from(kind: ProblemKind) -> Self {
        Self::Refused(Box::new(Problem::new(kind)))
    }
}

impl IntoResponse for ApiError {
    /// Builds the reply and nothing else. The error rides along for the edge to write down.
    fn into_response(self) -> Response {
        let mut response = problem_response(&self.problem());
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// The reply that carries a problem.
pub(crate) fn problem_response(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lull\""));
    }
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What a panic in a handler becomes.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words");
    ApiError::internal(anyhow::anyhow!("a handler panicked: {what}")).into_response()
}

/// A JSON body. What cannot be read is refused with the path of the field in question.
pub struct ApiJson<T, const BYTES_MAX: usize = { body::JSON_BYTES_MAX }>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<S>
    for ApiJson<T, BYTES_MAX>
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        Ok(Self(read_json(&body::read(request.into_body(), BYTES_MAX).await?)?))
    }
}

/// Reads JSON. What cannot be read is refused with the path of the field in question.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Read by its order alone, an array would pass for an object.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid("a JSON object is expected, not an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." | "" => ApiError::invalid(error.inner().to_string()),
            _ => ApiError::invalid(format!("{path}: {}", error.inner())),
        }
    })?;
    json.end().map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(value)
}

/// The query of an address.
pub struct ApiQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(Self(value)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => {
                let error: &dyn std::error::Error = &error;
                let detail = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Err(ApiError::invalid(format!("in the query: {detail}")))
            }
            Err(other) => Err(ApiError::invalid(other.to_string())),
        }
    }
}
