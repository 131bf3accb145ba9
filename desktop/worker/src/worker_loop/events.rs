//! The loop's talk with the pool: joining, registering, heartbeats and claims.

use std::sync::Arc;

use lull_shared::{
    client::ClientError,
    jobs::{ClaimQuery, ClaimReply, FailureKind, LeaseKey},
    local::Connection,
    problem::{Problem, ProblemKind},
    workers::{Heartbeat, HeartbeatReply, RegisterReply, RegisterWorker, WorkerState},
};
use secrecy::SecretString;
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Duration, Instant, timeout},
};

use super::{
    Answer, Beat, CLAIM_WAIT_SECS, Claim, GOODBYE_LIMIT, HEARTBEAT_EVERY, HEARTBEAT_LIMIT, Phase,
    Pool, REPORTS_PER_SLOT_MAX, WorkerLoop,
};
use crate::{
    api::{CoordinatorApi, Verdict, verdict},
    backoff::Backoff,
    courier::Courier,
    identity::{self, Identity, JoinError, innermost},
    policy::Decision,
    runner::KillReason,
};

/// The coordinator is told of no more inputs than this.
const CACHED_INPUTS_MAX: usize = 1000;

impl Pool {
    /// A link that is to be made now; none without a coordinator.
    pub(super) fn new(number: u32, api: Option<Arc<dyn CoordinatorApi>>) -> Self {
        let connection = api
            .as_ref()
            .map_or(Connection::NotJoined, |api| Connection::Connecting { address: api.address() });
        Self {
            number,
            registered: false,
            connection,
            register_at: api.is_some().then(Instant::now),
            register_backoff: Backoff::default(),
            heartbeat_at: None,
            heartbeat_every: HEARTBEAT_EVERY,
            heartbeat_backoff: Backoff::default(),
            heartbeat_running: false,
            draining: false,
            claim_at: Instant::now(),
            claim_backoff: Backoff::default(),
            claim: None,
            courier: api.clone().map(Courier::new),
            api,
        }
    }

    fn note_success(&mut self) {
        if let Some(api) = &self.api {
            let address = api.address();
            if !matches!(&self.connection, Connection::Connected { address: at } if *at == address)
            {
                tracing::info!(address, "coordinator answers");
                self.connection = Connection::Connected { address };
            }
        }
    }

    fn note_failure(&mut self, failure: &ClientError) {
        let Some(api) = &self.api else { return };
        let (address, error) = (api.address(), in_words(failure));
        let was_connected =
            !matches!(self.connection, Connection::Unreachable { .. } | Connection::Refused { .. });
        if was_connected {
            tracing::warn!(address, error, "coordinator does not answer as it should");
        }
        self.connection = match verdict(failure) {
            Verdict::Later => Connection::Unreachable { address, error },
            Verdict::NotWelcome | Verdict::Fenced | Verdict::Never => {
                Connection::Refused { address, error }
            }
        };
    }
}

fn in_words(failure: &ClientError) -> String {
    match failure {
        ClientError::Unreachable { address: _, source } => innermost(source.as_ref()),
        ClientError::Problem(_)
        | ClientError::Untrusted { .. }
        | ClientError::Protocol { .. }
        | ClientError::Address { .. }
        | ClientError::Certificate(_)
        | ClientError::Request(_)
        | ClientError::File { .. } => failure.to_string(),
    }
}

impl WorkerLoop {
    pub(super) fn start_join(
        &mut self,
        code: SecretString,
        reply: oneshot::Sender<Result<(), JoinError>>,
    ) {
        let (before, about) = (self.identity.clone(), self.about.clone());
        let connector = Arc::clone(&self.connector);
        self.answers.spawn(async move {
            let joined = identity::join(&code, before, about, connector.as_ref()).await;
            Answer::Joined(joined, reply)
        });
    }

    /// Leaves the pool it was in, if any, and becomes part of another.
    pub(super) fn enter_pool(&mut self, joined: Identity) -> Result<(), JoinError> {
        let identity = Identity { paused: self.identity.paused, ..joined };
        let path = self.folders.identity();
        identity.store(&path).map_err(|error| JoinError::NotStored {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        self.stop_claiming();
        self.give_back_waiting(FailureKind::WorkerStopping, "this PC goes to another pool");
        // The old coordinator hears of them by their own connection to it.
        self.end_running(KillReason::WorkerStopping);
        self.about.worker_id = identity.worker_id;
        self.identity = identity;
        self.membership.send_replace(self.identity.membership());
        let number = self.pool.number + 1;
        self.pool = Pool::new(number, start_api(&self.identity, self.connector.as_ref()));
        tracing::info!(worker.id = %self.identity.worker_id, "joined");
        Ok(())
    }

    pub(super) fn start_register(&mut self) {
        self.pool.register_at = None;
        let Some(api) = self.pool.api.clone() else { return };
        let (pool, about) = (self.pool.number, self.about.clone());
        let cache = Arc::clone(&self.tools.cache);
        self.answers.spawn(async move {
            let inputs = spawn_blocking(move || cache.newest(CACHED_INPUTS_MAX)).await;
            // Without the list jobs are handed out all the same.
            let about = RegisterWorker { cached_inputs: inputs.unwrap_or_default(), ..about };
            Answer::Registered(pool, api.register(&about).await)
        });
    }

    pub(super) fn note_registered(&mut self, reply: Result<RegisterReply, ClientError>) {
        match reply {
            Ok(reply) => {
                tracing::info!(worker.id = %reply.worker_id, "registered");
                self.pool.note_success();
                self.pool.register_backoff.reset();
                self.pool.registered = true;
                self.pool.heartbeat_every = Duration::from_millis(reply.heartbeat_ms)
                    .clamp(Duration::from_secs(1), Duration::from_secs(30));
                self.pool.claim_at = Instant::now();
                // Whoever is not ready says so at once.
                let ready = self.decision.reason().is_none();
                let wait = if ready { self.pool.heartbeat_every } else { Duration::ZERO };
                self.pool.heartbeat_at = Some(Instant::now() + wait);
                self.deliver_what_was_left();
            }
            Err(error) => {
                self.pool.note_failure(&error);
                self.pool.register_at = Some(Instant::now() + self.pool.register_backoff.next());
            }
        }
    }

    /// While something runs, twice as often as asked for: the reply brings cancellations, which are to take less than
    /// ten seconds altogether.
    fn heartbeat_interval(&self) -> Duration {
        if self.busy_slots() > 0 {
            self.pool.heartbeat_every / 2
        } else {
            self.pool.heartbeat_every
        }
    }

    /// A job has begun: its first heartbeat is not to be later than its others.
    pub(super) fn bring_heartbeat_forward(&mut self) {
        let latest = Instant::now() + self.heartbeat_interval();
        self.pool.heartbeat_at = self.pool.heartbeat_at.map(|at| at.min(latest));
    }

    /// Tells the coordinator soon, because what this worker does has changed for a reason people ask for.
    pub(super) fn hasten_heartbeat(&mut self) {
        if self.pool.registered {
            self.pool.heartbeat_at = Some(Instant::now());
        }
    }

    pub(super) fn start_heartbeat(&mut self) {
        let Some(api) = self.pool.api.clone() else { return };
        let (pool, now) = (self.pool.number, Instant::now());
        let heartbeat = self.heartbeat();
        let beat = Beat { sent_at: now, named: heartbeat.running.clone() };
        self.pool.heartbeat_at = Some(now + self.heartbeat_interval());
        self.pool.heartbeat_running = true;
        self.answers.spawn(async move {
            let reply = timeout(HEARTBEAT_LIMIT, api.heartbeat(&heartbeat)).await;
            Answer::Heartbeat(pool, beat, reply.unwrap_or_else(|_| Err(too_slow())))
        });
    }

    fn heartbeat(&self) -> Heartbeat {
        let pool = self.pool.number;
        let running: Vec<LeaseKey> =
            self.held.iter().filter(|(_, held)| held.pool == pool).map(|(key, _)| *key).collect();
        Heartbeat {
            worker_id: self.identity.worker_id,
            status: self.state(self.busy_slots() > 0),
            reason: self.decision.reason(),
            running,
        }
    }

    pub(super) fn note_heartbeat(
        &mut self,
        beat: &Beat,
        reply: Result<HeartbeatReply, ClientError>,
    ) {
        self.pool.heartbeat_running = false;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                self.pool.note_failure(&error);
                let wait = self.pool.heartbeat_backoff.next().min(self.pool.heartbeat_every);
                self.pool.heartbeat_at = Some(Instant::now() + wait);
                return;
            }
        };
        self.pool.note_success();
        self.pool.heartbeat_backoff.reset();
        self.note_drain(reply.drain);
        for key in &beat.named {
            let Some(held) = self.held.get_mut(key) else { continue };
            if held.phase == Phase::Waiting && reply.lost.contains(key) {
                self.drop_waiting(*key, None);
            } else if held.phase == Phase::Waiting && reply.cancel.contains(key) {
                let why = (FailureKind::Cancelled, "a person cancelled the job");
                self.drop_waiting(*key, Some(why));
            } else if reply.lost.contains(key) {
                held.steering.end(KillReason::LeaseLost);
            } else {
                held.lease_until = held.lease_until.max(beat.sent_at + held.lease);
                if reply.cancel.contains(key) && held.phase == Phase::Running {
                    held.steering.end(KillReason::Cancelled);
                }
            }
        }
    }

    /// An administrator wants this PC to take nothing new, or does so no more.
    fn note_drain(&mut self, drain: bool) {
        if self.pool.draining == drain {
            return;
        }
        tracing::info!(drain, "coordinator changed whether this worker drains");
        self.pool.draining = drain;
        if drain {
            self.stop_claiming();
            let message = "the worker takes nothing new for now";
            self.give_back_waiting(FailureKind::WorkerStopping, message);
        }
        self.hasten_heartbeat();
    }

    /// Whether a claim is to be sent: work is allowed, there is room, and none is on its way.
    pub(super) fn wants_work(&self) -> bool {
        self.pool.registered
            && self.stopping.is_none()
            && !self.pool.draining
            && self.pool.claim.is_none()
            && self.free_slots() + self.room_ahead() > 0
            && self.held.len() < (self.limits.slots * (REPORTS_PER_SLOT_MAX + 1)) as usize
    }

    pub(super) fn busy_slots(&self) -> u32 {
        let busy = self.held.values().filter(|held| held.phase == Phase::Running).count();
        u32::try_from(busy).unwrap_or(u32::MAX)
    }

    fn room_ahead(&self) -> u32 {
        match self.decision {
            Decision::Run { slots } => self.ahead.room(slots),
            Decision::Suspend(_) | Decision::Evict(_) => 0,
        }
    }

    pub(super) fn free_slots(&self) -> u32 {
        match self.decision {
            Decision::Run { slots } => slots.saturating_sub(self.busy_slots()),
            Decision::Suspend(_) | Decision::Evict(_) => 0,
        }
    }

    pub(super) fn start_claim(&mut self) {
        let Some(api) = self.pool.api.clone() else { return };
        let (pool, asked_at) = (self.pool.number, Instant::now());
        let ahead = self.room_ahead();
        let max = self.free_slots() + ahead;
        // Only a free slot is worth waiting at the coordinator for.
        let wait = if ahead > 0 { 0 } else { CLAIM_WAIT_SECS };
        let query = ClaimQuery { wait, max: Some(max) };
        let request = self
            .answers
            .spawn(async move { Answer::Claimed(pool, asked_at, api.get_job(&query).await) });
        self.pool.claim = Some(Claim { asked_at, max, waits: wait > 0, request });
    }

    /// Takes back the question at once, unless its answer is on its way already: a job that still arrives is given back.
    pub(super) fn stop_claiming(&mut self) {
        if let Some(claim) = self.pool.claim.take_if(|claim| claim.waits) {
            claim.request.abort();
        }
    }

    pub(super) fn note_claimed(
        &mut self,
        asked_at: Instant,
        reply: Result<ClaimReply, ClientError>,
    ) {
        // A question that was taken back may have been answered all the same, and another one be on its way.
        if let Some(claim) = self.pool.claim.take_if(|claim| claim.asked_at == asked_at) {
            let brought = reply.as_ref().map_or(0, |reply| reply.jobs.len());
            self.ahead.more = brought >= claim.max as usize;
        }
        match reply {
            Ok(reply) => {
                self.pool.note_success();
                self.pool.claim_backoff.reset();
                self.pool.claim_at = Instant::now();
                // While the question waited at the coordinator there was no lease yet.
                let claimed_at = asked_at + Duration::from_millis(reply.waited_ms);
                for assignment in reply.jobs {
                    self.take_job(assignment, claimed_at.min(Instant::now()));
                }
            }
            Err(error) => {
                self.pool.note_failure(&error);
                self.pool.claim_at = Instant::now() + self.pool.claim_backoff.next();
            }
        }
    }

    /// What tells the coordinator that this PC goes; nothing when it does not listen.
    pub(super) fn goodbye(&self) -> Option<(Arc<dyn CoordinatorApi>, Heartbeat)> {
        let api = self.pool.api.clone().filter(|_| self.pool.registered)?;
        let status = WorkerState::Offline;
        Some((api, Heartbeat { status, reason: None, ..self.heartbeat() }))
    }
}

/// Sends the goodbye.
pub(super) async fn say_goodbye(api: Arc<dyn CoordinatorApi>, goodbye: Heartbeat) {
    match timeout(GOODBYE_LIMIT, api.heartbeat(&goodbye)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(error = %error, "goodbye was not heard"),
        Err(_) => tracing::debug!("goodbye was not heard in time"),
    }
}

/// A client for the pool this PC is part of.
pub(super) fn start_api(
    identity: &Identity,
    connector: &dyn crate::api::Connector,
) -> Option<Arc<dyn CoordinatorApi>> {
    let enrolment = identity.enrolment.as_ref()?;
    connector
        .connect(&enrolment.membership, enrolment.token.clone())
        .inspect_err(|error| tracing::error!(error = %error, "stored coordinator cannot be used"))
        .ok()
}

fn too_slow() -> ClientError {
    ClientError::Problem(Problem::new(ProblemKind::TimedOut))
}
