//! What the worker needs of a coordinator, so that a test can play one.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use lull_shared::{
    client::{Client, ClientError, Trust},
    credentials::JoinCode,
    ids::Digest,
    jobs::{
        ClaimQuery, ClaimReply, ReportFailure, ResultReplies, ResultReply, SubmitResult,
        SubmitResults,
    },
    output::{AppendQuery, AppendReply},
    problem::ProblemKind,
    workers::{Heartbeat, HeartbeatReply, RegisterReply, RegisterWorker},
};
use secrecy::SecretString;

use crate::identity::Membership;

/// The requests of a worker. Every one may be sent again: the coordinator records each thing once.
#[async_trait]
pub trait CoordinatorApi: Send + Sync {
    /// Where the coordinator answers, for a person.
    fn address(&self) -> String;

    /// Says what this PC is.
    async fn register(&self, worker: &RegisterWorker) -> Result<RegisterReply, ClientError>;

    /// Says how this PC is, and renews leases.
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ClientError>;

    /// Claims jobs, waiting for one as long as the query says.
    async fn get_job(&self, query: &ClaimQuery) -> Result<ClaimReply, ClientError>;

    /// Appends output of an attempt.
    async fn stream_output(
        &self,
        query: &AppendQuery,
        output: Bytes,
    ) -> Result<AppendReply, ClientError>;

    /// Reports that the command ran.
    async fn submit_result(&self, result: &SubmitResult) -> Result<ResultReply, ClientError>;

    /// Reports that several commands ran.
    async fn submit_results(&self, results: &SubmitResults) -> Result<ResultReplies, ClientError>;

    /// Reports a failure that is not the command's own.
    async fn report_failure(&self, failure: &ReportFailure) -> Result<ResultReply, ClientError>;

    /// Uploads a file unless the coordinator has it.
    async fn upload(&self, path: &Path, digest: Digest) -> Result<(), ClientError>;

    /// Downloads to a new file and checks the digest; returns the size.
    async fn download(&self, digest: Digest, to: &Path) -> Result<u64, ClientError>;
}

#[async_trait]
impl CoordinatorApi for Client {
    fn address(&self) -> String {
        Self::address(self)
    }

    async fn register(&self, worker: &RegisterWorker) -> Result<RegisterReply, ClientError> {
        Self::register(self, worker).await
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ClientError> {
        Self::heartbeat(self, heartbeat).await
    }

    async fn get_job(&self, query: &ClaimQuery) -> Result<ClaimReply, ClientError> {
        Self::get_job(self, query).await
    }

    async fn stream_output(
        &self,
        query: &AppendQuery,
        output: Bytes,
    ) -> Result<AppendReply, ClientError> {
        Self::stream_output(self, query, output).await
    }

    async fn submit_result(&self, result: &SubmitResult) -> Result<ResultReply, ClientError> {
        Self::submit_result(self, result).await
    }

    async fn submit_results(&self, results: &SubmitResults) -> Result<ResultReplies, ClientError> {
        Self::submit_results(self, results).await
    }

    async fn report_failure(&self, failure: &ReportFailure) -> Result<ResultReply, ClientError> {
        Self::report_failure(self, failure).await
    }

    async fn upload(&self, path: &Path, digest: Digest) -> Result<(), ClientError> {
        self.upload_file(path, digest, |_, _| {}).await.map(drop)
    }

    async fn download(&self, digest: Digest, to: &Path) -> Result<u64, ClientError> {
        self.download_to(digest, to, |_, _| {}).await
    }
}

/// How a worker finds a coordinator.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The CA of the code's coordinator, as PEM. Sends nothing secret.
    async fn fetch_ca(&self, code: &JoinCode) -> Result<String, ClientError>;

    /// A client that trusts the pool's CA and shows this bearer token. Connects to nothing yet.
    fn connect(
        &self,
        membership: &Membership,
        bearer: SecretString,
    ) -> Result<Arc<dyn CoordinatorApi>, ClientError>;
}

/// Finds coordinators in the network.
#[derive(Clone, Copy, Debug)]
pub struct Network;

#[async_trait]
impl Connector for Network {
    async fn fetch_ca(&self, code: &JoinCode) -> Result<String, ClientError> {
        Client::fetch_ca(&code.addresses, code.pin).await
    }

    fn connect(
        &self,
        membership: &Membership,
        bearer: SecretString,
    ) -> Result<Arc<dyn CoordinatorApi>, ClientError> {
        let client = Client::new(&membership.addresses, Trust::CaPem(membership.ca_pem.clone()))?;
        Ok(Arc::new(client.with_token(bearer)))
    }
}

/// What a failed request means to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody answered, or only "later": try again.
    Later,
    /// The coordinator does not know this PC, or not any more: a person has to act.
    NotWelcome,
    /// The attempt is not this worker's any more.
    Fenced,
    /// It will never accept this request.
    Never,
}

/// Sorts a failed request.
pub(crate) const fn verdict(error: &ClientError) -> Verdict {
    match error {
        ClientError::Problem(problem) => match problem.kind {
            ProblemKind::LeaseLost | ProblemKind::Conflict | ProblemKind::NotFound => {
                Verdict::Fenced
            }
            ProblemKind::Unauthenticated | ProblemKind::Forbidden | ProblemKind::JoinRefused => {
                Verdict::NotWelcome
            }
            ProblemKind::Unavailable
            | ProblemKind::TimedOut
            | ProblemKind::RateLimited
            | ProblemKind::Internal
            | ProblemKind::DiskFull
            | ProblemKind::Unreachable
            | ProblemKind::Unknown => Verdict::Later,
            ProblemKind::Invalid
            | ProblemKind::MethodNotAllowed
            | ProblemKind::SubmissionRefused
            | ProblemKind::KeyReused
            | ProblemKind::QueueFull
            | ProblemKind::OffsetMismatch
            | ProblemKind::TooLarge
            | ProblemKind::ArchiveRefused
            | ProblemKind::FileMissing
            | ProblemKind::DigestMismatch
            | ProblemKind::DirectModeOff => Verdict::Never,
        },
        ClientError::Unreachable { .. } | ClientError::Protocol { .. } => Verdict::Later,
        ClientError::Untrusted { .. } => Verdict::NotWelcome,
        ClientError::Address { .. }
        | ClientError::Certificate(_)
        | ClientError::Request(_)
        | ClientError::File { .. } => Verdict::Never,
    }
}
