//! Errors on the wire: RFC 9457 problem documents with a `kind` that clients branch on.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, in the terms of the caller. Clients branch on this and on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request cannot be read or a value is out of range; `detail` names what and where.
    Invalid,
    /// No token, or one that is not known, expired or revoked.
    Unauthenticated,
    /// The token is known but does not allow this.
    Forbidden,
    /// There is no such thing, or it is not the caller's to see.
    NotFound,
    /// The address exists but not with this method.
    MethodNotAllowed,
    /// A later attempt of the job has begun, or the job has ended: this attempt changes nothing.
    LeaseLost,
    /// The thing is in a state that does not allow this, for example cancelling a finished job.
    Conflict,
    /// A submission can be read but breaks a rule or a limit; `detail` names the field and the rule.
    SubmissionRefused,
    /// The idempotency key was used for another submission.
    KeyReused,
    /// Output arrived at an offset other than the next one; `nextOffset` says where to go on.
    OffsetMismatch,
    /// The body is larger than allowed.
    TooLarge,
    /// The archive is refused; `detail` names the entry and the rule.
    ArchiveRefused,
    /// A file that the request names is not in the blob store yet.
    FileMissing,
    /// The bytes received do not have the digest that was announced.
    DigestMismatch,
    /// The join code is unknown, expired, used up or revoked.
    JoinRefused,
    /// Direct mode is switched off on this coordinator.
    DirectModeOff,
    /// Too many requests; try again later.
    RateLimited,
    /// As many of the user's jobs wait as may wait.
    QueueFull,
    /// The disk of the coordinator is full; reading still works.
    DiskFull,
    /// The coordinator cannot answer right now; try again.
    Unavailable,
    /// The request took too long.
    TimedOut,
    /// The coordinator cannot be reached; made on the client's side only.
    Unreachable,
    /// A defect in the coordinator.
    Internal,
    /// A kind this version does not know.
    #[serde(other)]
    Unknown,
}

impl ProblemKind {
    /// The HTTP status that goes with the kind.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated | Self::JoinRefused => 401,
            Self::Forbidden | Self::DirectModeOff => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TimedOut => 408,
            Self::LeaseLost | Self::Conflict | Self::OffsetMismatch => 409,
            Self::TooLarge => 413,
            Self::SubmissionRefused
            | Self::KeyReused
            | Self::ArchiveRefused
            | Self::FileMissing
            | Self::DigestMismatch => 422,
            Self::RateLimited | Self::QueueFull => 429,
            Self::Internal | Self::Unknown => 500,
            Self::Unavailable | Self::Unreachable => 503,
            Self::DiskFull => 507,
        }
    }

    /// One sentence for a person, without a full stop.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The request is not valid",
            Self::Unauthenticated => "A valid token is needed",
            Self::Forbidden => "This token does not allow that",
            Self::NotFound => "There is no such thing here",
            Self::MethodNotAllowed => "This address does not answer that method",
            Self::LeaseLost => "Another attempt of this job has begun, or the job has ended",
            Self::Conflict => "The state of this thing does not allow that",
            Self::SubmissionRefused => "The submission is refused",
            Self::KeyReused => "The idempotency key was used for another submission",
            Self::OffsetMismatch => "The output does not continue where the last part ended",
            Self::TooLarge => "The body is larger than allowed",
            Self::ArchiveRefused => "The archive is refused",
            Self::FileMissing => "A file the request names has not been uploaded",
            Self::DigestMismatch => "The bytes do not have the announced digest",
            Self::JoinRefused => "The join code is not valid, or not any more",
            Self::DirectModeOff => "Direct mode is switched off on this coordinator",
            Self::RateLimited => "Too many requests",
            Self::QueueFull => "Too many of your jobs wait already",
            Self::DiskFull => "The coordinator's disk is full",
            Self::Unavailable => "The coordinator cannot answer right now",
            Self::TimedOut => "The request took too long",
            Self::Unreachable => "The coordinator cannot be reached",
            Self::Internal => "Something went wrong in the coordinator",
            Self::Unknown => "The coordinator reported a problem",
        }
    }

    /// The stable name: the wire form of the kind, and the last part of the `type` address.
    #[must_use]
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            Ok(_) | Err(_) => "unknown".to_owned(),
        }
    }
}

/// An RFC 9457 problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `/problems/<kind>`: the standard's name for the kind.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// What went wrong; the field to branch on.
    pub kind: ProblemKind,
    /// The same in words, always the same words for one kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What exactly, and where: for a person. Absent on a server's own faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The id under which the coordinator logged the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// With `offset_mismatch`: the offset the next bytes must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
}

impl Problem {
    /// The content type of a problem document.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// The problem of this kind, with the kind's own title and status.
    #[must_use]
    pub fn new(kind: ProblemKind) -> Self {
        Self {
            type_uri: format!("/problems/{}", kind.name()),
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: None,
            request_id: None,
            next_offset: None,
        }
    }

    /// Adds what exactly went wrong.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_everywhere() {
        let problem = Problem::new(ProblemKind::LeaseLost).with_detail("attempt 2 has begun");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "/problems/lease_lost");
        assert_eq!(json["kind"], "lease_lost");
        assert_eq!(json["status"], 409);
    }

    #[test]
    fn a_newer_coordinator_s_kind_is_still_a_problem() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"/problems/x","kind":"from_the_future","title":"t","status":418}"#,
        )
        .unwrap();
        assert_eq!(problem.kind, ProblemKind::Unknown);
    }
}
