//! A coordinator, a PC and a sandbox that play by a test's script.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use lull_shared::{
    client::ClientError,
    credentials::{JoinCode, SpkiPin},
    ids::{Digest, JobId},
    jobs::{
        Assignment, ClaimQuery, ClaimReply, JobState, LeaseKey, Network, OnError, OnOwnerReturn,
        ReportFailure, ResultOutcome, ResultReplies, ResultReply, SubmitResult, SubmitResults,
    },
    output::{AppendQuery, AppendReply, Stream},
    problem::{Problem, ProblemKind},
    workers::{Heartbeat, HeartbeatReply, RegisterReply, RegisterWorker, SandboxLevel},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep, timeout_at},
};

use crate::{
    api::{Connector, CoordinatorApi},
    identity::Membership,
    machine::{Machine, Sample},
    spool::part_bytes,
};

pub(crate) mod sandbox;

/// Waits until a condition holds; says what it waited for when it does not come true.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(3600);
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What a request is for; failures are ordered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    Register,
    Heartbeat,
    GetJob,
    StreamOutput,
    SubmitResult,
    SubmitResults,
    ReportFailure,
    Upload,
    Download,
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It never arrives.
    RequestLost,
    /// It takes effect and its reply never arrives.
    ReplyLost,
    /// It is refused.
    Refused(ProblemKind),
    /// Nobody answers, ever.
    Hangs,
}

/// What the coordinator knows, and what it is to do next.
#[derive(Default)]
pub(crate) struct Played {
    /// A request takes a moment.
    pub(crate) takes: Duration,
    pub(crate) jobs: VecDeque<Assignment>,
    /// The next requests of a kind fail so, in order.
    pub(crate) failures: HashMap<Request, VecDeque<Failure>>,
    /// Nobody reaches it.
    pub(crate) away: bool,
    /// Every request, in order, those that failed too.
    pub(crate) requests: Vec<Request>,
    pub(crate) registered: Vec<RegisterWorker>,
    pub(crate) bearers: Vec<String>,
    pub(crate) heartbeats: Vec<Heartbeat>,
    pub(crate) next_heartbeat: HeartbeatReply,
    /// Every reply says so.
    pub(crate) drain: bool,
    pub(crate) cancel_on_output: bool,
    pub(crate) claims: Vec<ClaimQuery>,
    pub(crate) output: HashMap<(LeaseKey, &'static str), Vec<u8>>,
    pub(crate) results: Vec<SubmitResult>,
    /// Refuses the next result of a job, whatever it travels with.
    pub(crate) refuse_once: HashMap<JobId, ProblemKind>,
    pub(crate) reports: Vec<ReportFailure>,
    pub(crate) files: BTreeMap<Digest, Vec<u8>>,
    /// The CA that answers, by its pin.
    pub(crate) pin: Option<SpkiPin>,
}

/// A coordinator that plays by the script.
#[derive(Clone)]
pub(crate) struct Coordinator {
    played: Arc<Mutex<Played>>,
    arrived: Arc<Notify>,
    answered: Arc<Notify>,
}

impl Default for Coordinator {
    fn default() -> Self {
        let played = Played { takes: Duration::from_millis(1), ..Played::default() };
        let played = Arc::new(Mutex::new(played));
        Self { played, arrived: Arc::default(), answered: Arc::default() }
    }
}

impl Coordinator {
    pub(crate) fn now(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap()
    }

    /// Hands out a job to whoever asks next.
    pub(crate) fn offer(&self, job: Assignment) {
        self.now().jobs.push_back(job);
        self.arrived.notify_one();
    }

    /// Hands out jobs to whoever asks next.
    pub(crate) fn offer_many(&self, jobs: impl Iterator<Item = Assignment>) {
        self.now().jobs.extend(jobs);
        self.arrived.notify_one();
    }

    /// Returns when a request was answered; at once if one was since it was last asked.
    pub(crate) async fn answered(&self) {
        self.answered.notified().await;
    }

    pub(crate) fn fail_next(&self, request: Request, failure: Failure) {
        self.now().failures.entry(request).or_default().push_back(failure);
    }

    pub(crate) fn output_of(&self, key: LeaseKey, stream: Stream) -> String {
        let output = self.now().output.get(&(key, stream.name())).cloned().unwrap_or_default();
        String::from_utf8(output).unwrap()
    }

    pub(crate) fn count(&self, request: Request) -> usize {
        self.now().requests.iter().filter(|made| **made == request).count()
    }

    /// Does what a request asks for, unless the script has it fail.
    async fn answer<T>(
        &self,
        request: Request,
        act: impl FnOnce(&mut Played) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let failure = {
            let mut played = self.now();
            played.requests.push(request);
            if played.away {
                Some(Failure::RequestLost)
            } else {
                played.failures.get_mut(&request).and_then(VecDeque::pop_front)
            }
        };
        let takes = self.now().takes;
        if !takes.is_zero() {
            sleep(takes).await;
        }
        match failure {
            None => {
                let done = act(&mut self.now());
                self.answered.notify_one();
                done
            }
            Some(Failure::RequestLost) => Err(lost()),
            Some(Failure::ReplyLost) => {
                let _ = act(&mut self.now());
                Err(lost())
            }
            Some(Failure::Refused(kind)) => Err(refused(kind)),
            Some(Failure::Hangs) => std::future::pending().await,
        }
    }
}

fn lost() -> ClientError {
    ClientError::Unreachable { address: "played".to_owned(), source: "connection reset".into() }
}

fn refused(kind: ProblemKind) -> ClientError {
    ClientError::Problem(Problem::new(kind).with_detail("as the script has it"))
}

/// Appends as the real one does: what it has is skipped, a gap is refused.
fn append(
    played: &mut Played,
    key: LeaseKey,
    stream: Stream,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, ClientError> {
    let stored = played.output.entry((key, stream.name())).or_default();
    let offset = usize::try_from(offset).unwrap();
    if offset > stored.len() {
        let mut problem = Problem::new(ProblemKind::OffsetMismatch);
        problem.next_offset = Some(stored.len() as u64);
        return Err(ClientError::Problem(problem));
    }
    if let Some(new) = bytes.get(stored.len() - offset..) {
        stored.extend_from_slice(new);
    }
    Ok(stored.len() as u64)
}

/// Records a result, unless the script refuses that job's.
fn record(played: &mut Played, result: &SubmitResult) -> Result<ResultReply, ClientError> {
    if let Some(kind) = played.refuse_once.remove(&result.job_id) {
        return Err(refused(kind));
    }
    let key = LeaseKey { job_id: result.job_id, attempt: result.attempt };
    for part in &result.output {
        append(played, key, part.stream, part.offset, &part_bytes(part))?;
    }
    played.results.push(result.clone());
    Ok(ResultReply { job_id: result.job_id, status: JobState::Completed })
}

#[async_trait]
impl CoordinatorApi for Coordinator {
    fn address(&self) -> String {
        "https://played:7700".to_owned()
    }

    async fn register(&self, worker: &RegisterWorker) -> Result<RegisterReply, ClientError> {
        let worker = worker.clone();
        self.answer(Request::Register, |played| {
            let worker_id = worker.worker_id;
            played.registered.push(worker);
            Ok(RegisterReply {
                worker_id,
                heartbeat_ms: 10_000,
                lease_ms: 60_000,
                coordinator_version: "played".to_owned(),
            })
        })
        .await
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ClientError> {
        let heartbeat = heartbeat.clone();
        self.answer(Request::Heartbeat, |played| {
            played.heartbeats.push(heartbeat);
            let drain = played.drain;
            Ok(HeartbeatReply { drain, ..std::mem::take(&mut played.next_heartbeat) })
        })
        .await
    }

    async fn get_job(&self, query: &ClaimQuery) -> Result<ClaimReply, ClientError> {
        let asked_at = Instant::now();
        let until = asked_at + Duration::from_secs(query.wait.into());
        self.answer(Request::GetJob, |played| {
            played.claims.push(*query);
            Ok(())
        })
        .await?;
        let max = query.max.unwrap_or(1) as usize;
        loop {
            let arrived = self.arrived.notified();
            let jobs: Vec<Assignment> = {
                let mut played = self.now();
                let count = played.jobs.len().min(max);
                played.jobs.drain(..count).collect()
            };
            if !jobs.is_empty() || timeout_at(until, arrived).await.is_err() {
                let waited_ms = u64::try_from(asked_at.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(ClaimReply { jobs, waited_ms });
            }
        }
    }

    async fn stream_output(
        &self,
        query: &AppendQuery,
        output: Bytes,
    ) -> Result<AppendReply, ClientError> {
        let key = LeaseKey { job_id: query.job_id, attempt: query.attempt };
        self.answer(Request::StreamOutput, |played| {
            let next_offset = append(played, key, query.stream, query.offset, &output)?;
            Ok(AppendReply { next_offset, cancel: played.cancel_on_output })
        })
        .await
    }

    async fn submit_result(&self, result: &SubmitResult) -> Result<ResultReply, ClientError> {
        self.answer(Request::SubmitResult, |played| record(played, result)).await
    }

    async fn submit_results(&self, results: &SubmitResults) -> Result<ResultReplies, ClientError> {
        self.answer(Request::SubmitResults, |played| {
            let each = results.results.iter().map(|result| match record(played, result) {
                Ok(reply) => ResultOutcome::Recorded(reply),
                Err(error) => ResultOutcome::Refused(error.to_problem()),
            });
            Ok(ResultReplies { replies: each.collect() })
        })
        .await
    }

    async fn report_failure(&self, failure: &ReportFailure) -> Result<ResultReply, ClientError> {
        self.answer(Request::ReportFailure, |played| {
            played.reports.push(failure.clone());
            Ok(ResultReply { job_id: failure.job_id, status: JobState::Pending })
        })
        .await
    }

    async fn upload(&self, path: &Path, digest: Digest) -> Result<(), ClientError> {
        let bytes = std::fs::read(path).unwrap();
        self.answer(Request::Upload, |played| {
            played.files.insert(digest, bytes);
            Ok(())
        })
        .await
    }

    async fn download(&self, digest: Digest, to: &Path) -> Result<u64, ClientError> {
        self.answer(Request::Download, |played| {
            let bytes = played.files.get(&digest).ok_or_else(|| refused(ProblemKind::NotFound))?;
            std::fs::write(to, bytes).unwrap();
            Ok(bytes.len() as u64)
        })
        .await
    }
}

#[async_trait]
impl Connector for Coordinator {
    async fn fetch_ca(&self, code: &JoinCode) -> Result<String, ClientError> {
        sleep(Duration::from_millis(1)).await;
        let played = self.now();
        let address = code.addresses[0].clone();
        match played.pin {
            _ if played.away => Err(lost()),
            Some(pin) if pin == code.pin => Ok(format!("CA of {address}")),
            Some(_) | None => {
                Err(ClientError::Untrusted { address, reason: "another CA".to_owned() })
            }
        }
    }

    fn connect(
        &self,
        _: &Membership,
        bearer: SecretString,
    ) -> Result<Arc<dyn CoordinatorApi>, ClientError> {
        self.now().bearers.push(bearer.expose_secret().to_owned());
        Ok(Arc::new(self.clone()))
    }
}

/// A job of one command, with a lease of a minute.
pub(crate) fn job(command: &str) -> Assignment {
    Assignment {
        job_id: JobId::generate(),
        attempt: 1,
        lease_ms: 60_000,
        name: command.to_owned(),
        command: command.to_owned(),
        argv: Vec::new(),
        shell: None,
        on_error: OnError::Stop,
        timeout_secs: None,
        filename: None,
        file_url: None,
        file_digest: None,
        env: BTreeMap::new(),
        outputs: Vec::new(),
        min_sandbox: SandboxLevel::L2,
        network: Network::None,
        on_owner_return: OnOwnerReturn::Pause,
        submitted_by: "ana".to_owned(),
    }
}

/// A PC that looks as the test says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pc {
    pub(crate) looks: Arc<Mutex<Sample>>,
}

impl Pc {
    pub(crate) fn idle_for(&self, secs: u64) {
        self.looks.lock().unwrap().idle_for = Some(Duration::from_secs(secs));
    }
}

impl Machine for Pc {
    fn sample(&mut self, _working: bool) -> Sample {
        *self.looks.lock().unwrap()
    }
}
