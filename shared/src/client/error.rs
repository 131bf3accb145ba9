//! What can go wrong with a request, and how replies are read.

use std::{error::Error as StdError, fmt, io, path::PathBuf};

use bytes::{Bytes, BytesMut};
use reqwest::header::CONTENT_TYPE;
use rustls::{CertificateError, Error as TlsError};
use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemKind};

/// The largest reply that is read into memory: a stream of output at its cap, with room to spare.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;

type Source = Box<dyn StdError + Send + Sync>;

/// Why a request has no good reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The coordinator refused, and says why.
    #[error("{0}")]
    Problem(Problem),
    /// No connection, or it broke, or the reply took too long: trying again may help.
    #[error("the coordinator at {address} cannot be reached")]
    Unreachable {
        /// Which address.
        address: String,
        /// What exactly happened.
        #[source]
        source: Source,
    },
    /// Whoever answers is not the coordinator that was expected. Nothing secret was sent.
    #[error("the coordinator at {address} is not the one expected: {reason}")]
    Untrusted {
        /// Which address.
        address: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The reply makes no sense: probably something else than a coordinator answers there.
    #[error("the coordinator at {address} sent {what}")]
    Protocol {
        /// Which address.
        address: String,
        /// What it sent.
        what: String,
        /// What exactly is wrong with it.
        #[source]
        source: Option<Source>,
    },
    /// An address that is none of a coordinator.
    #[error("{address:?} is not an address of a coordinator: {reason}")]
    Address {
        /// The text.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The CA that was given cannot be used.
    #[error("the CA certificate cannot be used: {0}")]
    Certificate(String),
    /// The request cannot be made of what was given.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// A local file could not be read or written.
    #[error("could not use {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    /// What went wrong, in the words of the wire.
    #[must_use]
    pub const fn kind(&self) -> ProblemKind {
        match self {
            Self::Problem(problem) => problem.kind,
            Self::Unreachable { .. } | Self::Untrusted { .. } => ProblemKind::Unreachable,
            Self::Protocol { .. } => ProblemKind::Unknown,
            Self::Address { .. } | Self::Certificate(_) | Self::Request(_) | Self::File { .. } => {
                ProblemKind::Invalid
            }
        }
    }

    /// The same as a problem document, for callers that show problems.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        match self {
            Self::Problem(problem) => problem.clone(),
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Protocol { .. }
            | Self::Address { .. }
            | Self::Certificate(_)
            | Self::Request(_)
            | Self::File { .. } => Problem::new(self.kind()).with_detail(chain(self)),
        }
    }

    /// Whether the same request may do better a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Problem(problem) => matches!(
                problem.kind,
                ProblemKind::Unavailable
                    | ProblemKind::TimedOut
                    | ProblemKind::RateLimited
                    | ProblemKind::Internal
                    | ProblemKind::DiskFull
            ),
            Self::Untrusted { .. }
            | Self::Protocol { .. }
            | Self::Address { .. }
            | Self::Certificate(_)
            | Self::Request(_)
            | Self::File { .. } => false,
        }
    }

    pub(super) fn request(why: impl fmt::Display) -> Self {
        Self::Request(why.to_string())
    }

    pub(super) fn unreachable(address: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unreachable { address: address.into(), source: source.into() }
    }
}

/// The message with all its causes.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some layers repeat their cause in their own message.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Sorts a failed request: a wrong certificate is final, a lost connection is not.
pub(super) fn classify(address: &str, error: reqwest::Error) -> ClientError {
    if let Some(reason) = untrusted_reason(&error) {
        return ClientError::Untrusted { address: address.to_owned(), reason };
    }
    let error = error.without_url();
    if error.is_builder() {
        return ClientError::request(chain(&error));
    }
    if error.is_timeout() {
        return ClientError::unreachable(address, "it did not answer in time");
    }
    // The outermost two only say that a request failed; what follows them says why.
    let why = error.source().and_then(StdError::source).map_or_else(|| chain(&error), chain);
    ClientError::unreachable(address, why)
}

/// What is wrong with the certificate, when that is why the request failed.
fn untrusted_reason(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(TlsError::InvalidCertificate(why)) = tls_error(error) {
            return Some(if *why == CertificateError::UnknownIssuer {
                "its certificate is signed by another CA".to_owned()
            } else if *why == CertificateError::ApplicationVerificationFailure {
                "its CA does not have the expected fingerprint".to_owned()
            } else {
                format!("its certificate is not valid here: {why}")
            });
        }
        next = error.source();
    }
    None
}

/// The TLS error that this error is, or that it wraps as an I/O error: `source` skips what those wrap.
fn tls_error<'e>(mut error: &'e (dyn StdError + 'static)) -> Option<&'e TlsError> {
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    error.downcast_ref()
}

/// Turns every reply that is not a success into its error.
pub(super) async fn accept(response: reqwest::Response) -> Result<reqwest::Response, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let address = origin(&response);
    if status.is_redirection() {
        let what = format!("a redirection ({status}), which is not followed");
        return Err(ClientError::Protocol { address, what, source: None });
    }
    let is_problem = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with(Problem::MEDIA_TYPE));
    let problem =
        if is_problem { serde_json::from_slice(&read_body(response).await?).ok() } else { None };
    Err(ClientError::Problem(problem.unwrap_or_else(|| problem_of_status(status))))
}

/// A problem for a reply without a document: of `HEAD`, or of a proxy on the way.
fn problem_of_status(status: reqwest::StatusCode) -> Problem {
    let kind = match status.as_u16() {
        400 => ProblemKind::Invalid,
        401 => ProblemKind::Unauthenticated,
        403 => ProblemKind::Forbidden,
        404 => ProblemKind::NotFound,
        405 => ProblemKind::MethodNotAllowed,
        408 => ProblemKind::TimedOut,
        409 => ProblemKind::Conflict,
        413 => ProblemKind::TooLarge,
        429 => ProblemKind::RateLimited,
        500 => ProblemKind::Internal,
        502..=504 => ProblemKind::Unavailable,
        507 => ProblemKind::DiskFull,
        _ => ProblemKind::Unknown,
    };
    let mut problem = Problem::new(kind).with_detail(format!("the reply was {status}"));
    problem.status = status.as_u16();
    problem
}

/// Reads a success as JSON.
pub(super) async fn read_json<T: DeserializeOwned>(
    response: reqwest::Response,
) -> Result<T, ClientError> {
    let response = accept(response).await?;
    let address = origin(&response);
    let body = read_body(response).await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Protocol {
        address,
        what: "a reply that is not what Lull sends".to_owned(),
        source: Some(error.into()),
    })
}

/// Reads a body into memory, within limits.
pub(super) async fn read_body(mut response: reqwest::Response) -> Result<Bytes, ClientError> {
    let address = origin(&response);
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&address, error))? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
            let what = "a reply that is too large".to_owned();
            return Err(ClientError::Protocol { address, what, source: None });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The address a reply came from.
pub(super) fn origin(response: &reqwest::Response) -> String {
    response.url().origin().ascii_serialization()
}
