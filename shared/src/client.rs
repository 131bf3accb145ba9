//! The typed HTTP client with the pinned CA, used by worker, desktop and CLI.
//!
//! One method per endpoint. Every failure is a [`ClientError`]; nothing secret leaves before the coordinator
//! has proved itself by [`Trust`].

mod error;
mod files;
mod follow;
mod jobs;
mod sse;
mod transport;
mod trust;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use secrecy::SecretString;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::{
    error::ClientError,
    files::{Download, Progress, hash_file},
    trust::Trust,
};
use self::{
    follow::{Follow, PoolFeed},
    transport::Transport,
};
use crate::{
    credentials::{SpkiPin, WhoAmI},
    events::PoolEvent,
    ids::{Digest, JobId},
    jobs::{
        ClaimQuery, ClaimReply, ReportFailure, ResultReplies, ResultReply, SubmitResult,
        SubmitResults,
    },
    output::{AppendQuery, AppendReply, OutputEvent, OutputQuery, OutputView},
    workers::{Heartbeat, HeartbeatReply, RegisterReply, RegisterWorker},
};

/// How long an ordinary request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How much longer than its own waiting time a long poll may take.
const POLL_GRACE: Duration = Duration::from_secs(15);

/// Talks to one coordinator. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
    token: Option<SecretString>,
}

impl Client {
    /// A client for a coordinator that answers at one of the addresses, tried in order: `host:port`, which
    /// means `https://host:port`, or an `https://` address. Plain `http://` is accepted for loopback hosts.
    /// Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::Address`] for an address of another form or none at all, [`ClientError::Certificate`]
    /// when the CA in `trust` cannot be read.
    pub fn new<A: AsRef<str>>(addresses: &[A], trust: Trust) -> Result<Self, ClientError> {
        Ok(Self { transport: Arc::new(Transport::new(addresses, trust)?), token: None })
    }

    /// The same connections with this bearer token on every request.
    #[must_use]
    pub fn with_token(&self, token: SecretString) -> Self {
        Self { transport: Arc::clone(&self.transport), token: Some(token) }
    }

    /// The address that answered last, without a slash at its end.
    #[must_use]
    pub fn address(&self) -> String {
        self.transport.address()
    }

    /// With [`Trust::SpkiPin`]: the CA that had the pin, as PEM, once a connection was made. Keep it and use
    /// [`Trust::CaPem`] from then on.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        self.transport.ca_pem()
    }

    /// Connects with the pin and returns the CA that has it, as PEM. Sends nothing secret.
    ///
    /// # Errors
    ///
    /// [`ClientError::Untrusted`] when the coordinator shows no chain to such a CA.
    pub async fn fetch_ca<A: AsRef<str>>(
        addresses: &[A],
        pin: SpkiPin,
    ) -> Result<String, ClientError> {
        let client = Self::new(addresses, Trust::SpkiPin(pin))?;
        client.healthz().await?;
        client.ca_pem().ok_or_else(|| ClientError::Untrusted {
            address: client.address(),
            reason: "a fingerprint needs an https:// address".to_owned(),
        })
    }

    /// `GET /healthz`: whether the coordinator answers at all. Needs no token.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`] when it does not.
    pub async fn healthz(&self) -> Result<(), ClientError> {
        let response = self
            .transport
            .send(|http, base| http.get(format!("{base}/healthz")).timeout(REQUEST_LIMIT))
            .await?;
        error::accept(response).await.map(drop)
    }

    /// `GET /api/whoami`: who the token belongs to.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `unauthenticated` for a token the coordinator does not know.
    pub async fn whoami(&self) -> Result<WhoAmI, ClientError> {
        self.get("/api/whoami", &()).await
    }

    /// `POST /api/workers/register`, with the join code's bearer the first time and the worker's own later.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `join_refused` for a code that is not valid any more.
    pub async fn register(&self, worker: &RegisterWorker) -> Result<RegisterReply, ClientError> {
        self.json(Method::POST, "/api/workers/register", worker).await
    }

    /// `POST /api/workers/heartbeat`.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ClientError> {
        self.json(Method::POST, "/api/workers/heartbeat", heartbeat).await
    }

    /// `GET /api/jobs/get-job`: claims jobs, waiting for one as long as the query says.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; no job in time is an empty list.
    pub async fn get_job(&self, query: &ClaimQuery) -> Result<ClaimReply, ClientError> {
        let limit = Duration::from_secs(query.wait.into()) + POLL_GRACE;
        let response =
            self.request(Method::GET, "/api/jobs/get-job", limit, |r| r.query(query)).await?;
        error::read_json(response).await
    }

    /// `POST /api/jobs/stream-output`: appends bytes of one stream.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `offset_mismatch` carries the offset to go on from, `lease_lost` ends the attempt.
    pub async fn stream_output(
        &self,
        query: &AppendQuery,
        output: Bytes,
    ) -> Result<AppendReply, ClientError> {
        let response = self
            .request(Method::POST, "/api/jobs/stream-output", REQUEST_LIMIT, |request| {
                request
                    .query(query)
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(output.clone())
            })
            .await?;
        error::read_json(response).await
    }

    /// `POST /api/jobs/submit-result`: the command ran.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `lease_lost` when the report changes nothing any more.
    pub async fn submit_result(&self, result: &SubmitResult) -> Result<ResultReply, ClientError> {
        self.json(Method::POST, "/api/jobs/submit-result", result).await
    }

    /// `POST /api/jobs/submit-result` with several results, at most [`crate::jobs::RESULTS_MAX`].
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; what became of each result is in the reply.
    pub async fn submit_results(
        &self,
        results: &SubmitResults,
    ) -> Result<ResultReplies, ClientError> {
        self.json(Method::POST, "/api/jobs/submit-result", results).await
    }

    /// `PUT /api/jobs/submit-result`: the attempt ended for a reason that is not the command's own.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `lease_lost` when the report changes nothing any more.
    pub async fn report_failure(
        &self,
        failure: &ReportFailure,
    ) -> Result<ResultReply, ClientError> {
        self.json(Method::PUT, "/api/jobs/submit-result", failure).await
    }

    /// `GET /api/jobs/output` as bytes: one stream of one attempt, as it came.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub async fn output_bytes(&self, query: &OutputQuery) -> Result<Bytes, ClientError> {
        let response = self
            .request(Method::GET, "/api/jobs/output", REQUEST_LIMIT, |request| request.query(query))
            .await?;
        let response = error::accept(response).await?;
        error::read_body(response).await
    }

    /// `GET /api/jobs/output` as events, from the first attempt's first byte to the job's end. Resumes by
    /// itself after every disconnect, for as long as it takes, and ends after [`OutputEvent::Ended`]. An
    /// error is final: the coordinator's refusal, or a certificate that is not the right one.
    #[must_use]
    pub fn follow_output(
        &self,
        job_id: JobId,
        view: OutputView,
    ) -> BoxStream<'static, Result<OutputEvent, ClientError>> {
        self.follow_output_telling(job_id, view, |_error| {})
    }

    /// The same; calls `disconnected` each time the connection is lost and before it is tried again.
    #[must_use]
    pub fn follow_output_telling(
        &self,
        job_id: JobId,
        view: OutputView,
        disconnected: impl FnMut(&ClientError) + Send + 'static,
    ) -> BoxStream<'static, Result<OutputEvent, ClientError>> {
        let query = OutputQuery { job_id, stream: None, attempt: None, view: Some(view) };
        Follow::new(self.clone(), query, Box::new(disconnected)).into_stream()
    }

    /// `GET /api/events`: what changes in the pool, for as long as somebody reads. Resumes by itself after every
    /// disconnect; [`PoolEvent::Reset`] comes first and whenever something may have been missed: read anew then
    /// what is shown. An error is final.
    #[must_use]
    pub fn follow_pool(&self) -> BoxStream<'static, Result<PoolEvent, ClientError>> {
        self.follow_pool_telling(|_error| {})
    }

    /// The same; calls `disconnected` each time the connection is lost and before it is tried again.
    #[must_use]
    pub fn follow_pool_telling(
        &self,
        disconnected: impl FnMut(&ClientError) + Send + 'static,
    ) -> BoxStream<'static, Result<PoolEvent, ClientError>> {
        Follow::new(self.clone(), PoolFeed, Box::new(disconnected)).into_stream()
    }

    /// `POST /api/execute` in direct mode: runs the lines on the coordinator's own machine, in a folder with
    /// the zip unpacked, and streams what happens. A lost connection is an error: nothing is resumed.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `direct_mode_off` where it is not allowed.
    pub async fn execute_direct(
        &self,
        commands: &str,
        outputs: &[String],
        zip: Option<&Path>,
        view: OutputView,
    ) -> Result<BoxStream<'static, Result<OutputEvent, ClientError>>, ClientError> {
        follow::execute_direct(self, commands, outputs, zip, view).await
    }

    /// `HEAD /api/files/{digest}`: the size of the file when the coordinator has it.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`] but `not_found`.
    pub async fn has_file(&self, digest: Digest) -> Result<Option<u64>, ClientError> {
        files::has_file(self, digest).await
    }

    /// `POST /api/files/upload`, unless the coordinator has the file. Streams it; `progress` is told the bytes
    /// sent so far and the size of the file, and hears both equal at the end also when nothing was sent.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; [`ClientError::File`] when the file cannot be read.
    pub async fn upload_file(
        &self,
        path: &Path,
        digest: Digest,
        progress: impl Progress,
    ) -> Result<crate::files::StoredFile, ClientError> {
        files::upload(self, path, digest, Arc::new(progress)).await
    }

    /// `GET /api/files/{digest}` as chunks. The caller checks the digest; [`Client::download_to`] does so
    /// itself.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `not_found` for an unknown file.
    pub async fn download_file(&self, digest: Digest) -> Result<Download, ClientError> {
        files::download(self, digest).await
    }

    /// Downloads to a new file at `path`, which must not exist, and checks the digest; leaves nothing behind
    /// when it fails. `progress` is told the bytes so far and the size, 0 when it is not known. Returns the size.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; [`ClientError::File`] when the file cannot be written, `digest_mismatch` when
    /// other bytes arrived.
    pub async fn download_to(
        &self,
        digest: Digest,
        path: &Path,
        progress: impl Progress,
    ) -> Result<u64, ClientError> {
        files::download_to(self, digest, path, &progress).await
    }

    /// Any request with JSON in and out, for callers that pass on what they do not look into. `path` begins
    /// with `/api/` and may carry a query. A problem comes back as its status and body.
    ///
    /// # Errors
    ///
    /// [`ClientError`] only when there was no reply, or one that is not JSON.
    pub async fn request_json(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), ClientError> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| ClientError::request("the method is not one of HTTP"))?;
        if !path.starts_with("/api/") || path.split(['?', '#']).next().unwrap_or("").contains("..")
        {
            return Err(ClientError::request("the path does not begin with /api/"));
        }
        let response = self
            .request(method, path, REQUEST_LIMIT, |request| match body {
                Some(body) => request.json(body),
                None => request,
            })
            .await?;
        let status = response.status().as_u16();
        let body = error::read_body(response).await?;
        if body.is_empty() {
            return Ok((status, Value::Null));
        }
        match serde_json::from_slice(&body) {
            Ok(value) => Ok((status, value)),
            Err(error) => Err(self.transport.protocol("a reply that is not JSON", error)),
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &(impl Serialize + ?Sized),
    ) -> Result<T, ClientError> {
        let response =
            self.request(Method::GET, path, REQUEST_LIMIT, |request| request.query(query)).await?;
        error::read_json(response).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, ClientError> {
        let response =
            self.request(method, path, REQUEST_LIMIT, |request| request.json(body)).await?;
        error::read_json(response).await
    }

    /// Sends one request with the token; `shape` adds query and body, once for each address tried.
    async fn request(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
        shape: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        self.transport
            .send(|http, base| {
                let request = http
                    .request(method.clone(), format!("{base}{path}"))
                    .timeout(limit)
                    .header(ACCEPT, "application/json");
                shape(self.signed(request))
            })
            .await
    }

    /// Sends a request whose reply goes on for as long as it likes, once it has begun.
    async fn open(
        &self,
        method: Method,
        path: &str,
        shape: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        let send = self.transport.send(|http, base| {
            shape(self.signed(http.request(method.clone(), format!("{base}{path}"))))
        });
        match tokio::time::timeout(REQUEST_LIMIT, send).await {
            Ok(reply) => reply,
            Err(_) => Err(ClientError::unreachable(self.address(), "it did not answer in time")),
        }
    }

    /// Puts the token on a request, marked so that no log shows it.
    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.headers(transport::authorization(token)),
            None => request,
        }
    }
}
