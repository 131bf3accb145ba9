//! The worker loop: one task owns all worker state and handles one event at a time.
//!
//! `handle` never waits for the network: anything slow is spawned and comes back as another event, so the owner's pause
//! takes effect at once even while the coordinator hangs.

use std::{collections::HashMap, fs::File, sync::Arc};

use lull_shared::{
    client::ClientError,
    jobs::{ClaimReply, FailureKind, LeaseKey, OnOwnerReturn},
    local::{Connection, LocalAttempt, LocalHistory, LocalStatus},
    workers::{HeartbeatReply, RegisterReply, RegisterWorker, WorkerState},
};
use secrecy::SecretString;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, Id, JoinSet},
    time::{Duration, Instant},
};

use crate::{
    api::{Connector, CoordinatorApi},
    attempt::{Progress, Steering, Tools},
    backoff::Backoff,
    courier::Courier,
    history::HistoryError,
    identity::{Folders, Identity, JoinError, Membership},
    machine::{Machine, Sample},
    policy::{self, Decision, Limits},
    runner::KillReason,
    spool::Report,
};

mod ahead;
mod events;
mod slots;
mod start;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use start::start;

use ahead::Ahead;

/// How often the PC is looked at…
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// …and while attempts run: the owner is not to wait for their own PC.
const SAMPLE_EVERY_WORKING: Duration = Duration::from_millis(500);
/// How long a claim waits for a job, in seconds.
const CLAIM_WAIT_SECS: u32 = 25;
/// How long a heartbeat may take.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(10);
/// Between heartbeats, unless the coordinator says otherwise.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// More reports than this for each slot that wait for the coordinator: no new job is claimed.
const REPORTS_PER_SLOT_MAX: u32 = 8;
/// How long attempts may take to end and report when the worker stops.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long the goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_millis(1500);

/// How long the last rows of the history may take.
const HISTORY_LIMIT: Duration = Duration::from_millis(500);

/// What the program around the worker asks of it.
#[derive(Debug)]
pub(crate) enum Command {
    /// The owner's pause, on or off.
    SetPaused(bool),
    /// Join a pool.
    Join {
        /// The code.
        code: SecretString,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), JoinError>>,
    },
    /// Read what ran here.
    History {
        /// At most this many.
        limit: u32,
        /// Where they go.
        reply: oneshot::Sender<Result<LocalHistory, HistoryError>>,
    },
    /// End.
    Stop,
    /// End without a word to anybody, as a power cut would.
    #[cfg(test)]
    BreakOff,
}

/// Everything that can make the worker act. A new trigger is a new variant here.
enum Event {
    Command(Command),
    Attempt(LeaseKey, Progress),
    /// An attempt's task is over; or it ended by a panic, which is told.
    AttemptOver(Id, Option<String>),
    /// A request was answered, or the PC was looked at.
    Answer(Answer),
    /// The time for something has come.
    Due,
}

/// What a spawned request brings back. Requests to a pool carry its number: what an earlier pool says is not heard.
enum Answer {
    Sampled(Box<dyn Machine>, Sample),
    Joined(Result<Identity, JoinError>, oneshot::Sender<Result<(), JoinError>>),
    Registered(u32, Result<RegisterReply, ClientError>),
    Heartbeat(u32, Beat, Result<HeartbeatReply, ClientError>),
    Claimed(u32, Instant, Result<ClaimReply, ClientError>),
    /// Nobody waits for it.
    Nothing,
}

/// A heartbeat on its way: leases are renewed from the moment before it was sent.
struct Beat {
    sent_at: Instant,
    named: Vec<LeaseKey>,
}

/// An attempt that this worker answers for.
struct HeldAttempt {
    pool: u32,
    phase: Phase,
    steering: Steering,
    on_owner_return: OnOwnerReturn,
    /// What the owner sees; none for what an earlier process left behind.
    local: Option<LocalAttempt>,
    lease: Duration,
    lease_until: Instant,
    began: Instant,
    task: Option<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Claimed ahead of a free slot.
    Waiting,
    /// Occupies a slot.
    Running,
    /// Its tree is dead; its end may be on its way already, but is not on disk.
    Ending,
    /// Its end is on disk and on its way to the coordinator.
    Reporting,
}

/// The link to the pool.
struct Pool {
    /// Grows with every join.
    number: u32,
    api: Option<Arc<dyn CoordinatorApi>>,
    /// Takes results there.
    courier: Option<Courier>,
    registered: bool,
    connection: Connection,
    register_at: Option<Instant>,
    register_backoff: Backoff,
    heartbeat_at: Option<Instant>,
    heartbeat_every: Duration,
    heartbeat_backoff: Backoff,
    heartbeat_running: bool,
    /// An administrator wants nothing new to be taken.
    draining: bool,
    claim_at: Instant,
    claim_backoff: Backoff,
    /// The question for jobs that is on its way, and when it was asked.
    claim: Option<Claim>,
}

/// A question for jobs.
struct Claim {
    asked_at: Instant,
    /// For so many.
    max: u32,
    /// Whether it waits at the coordinator for jobs to come.
    waits: bool,
    request: AbortHandle,
}

/// All of a worker.
struct WorkerLoop {
    /// Goes first, so that the data folder is free when the commands' channel says that the worker has ended.
    _lock: File,
    folders: Folders,
    identity: Identity,
    about: RegisterWorker,
    limits: Limits,
    connector: Arc<dyn Connector>,
    tools: Arc<Tools>,

    commands: mpsc::UnboundedReceiver<Command>,
    progress: mpsc::UnboundedReceiver<(LeaseKey, Progress)>,
    tell_progress: mpsc::UnboundedSender<(LeaseKey, Progress)>,
    answers: JoinSet<Answer>,
    tasks: JoinSet<()>,

    /// Away while it looks.
    machine: Option<Box<dyn Machine>>,
    sample: Sample,
    sample_at: Option<Instant>,
    decision: Decision,
    suspended_since: Option<Instant>,

    pool: Pool,
    held: HashMap<LeaseKey, HeldAttempt>,
    ahead: Ahead,
    /// What an earlier process left to report.
    left: Vec<Report>,
    stopping: Option<Instant>,

    status: watch::Sender<LocalStatus>,
    membership: watch::Sender<Option<Membership>>,
}

impl WorkerLoop {
    /// Runs until stopped.
    async fn run(mut self) {
        self.publish();
        while !self.is_done() {
            let event = self.next_event().await;
            self.handle(event);
            self.publish();
        }
        if let Some((api, goodbye)) = self.goodbye() {
            events::say_goodbye(api, goodbye).await;
        }
        // What is not reported by now goes out with the next start.
        self.tasks.abort_all();
        if tokio::time::timeout(HISTORY_LIMIT, self.tools.history.flush()).await.is_err() {
            tracing::warn!("history was not written in time");
        }
        self.pool.registered = false;
        self.publish();
    }

    async fn next_event(&mut self) -> Event {
        let due = self.next_due();
        tokio::select! {
            biased;
            command = self.commands.recv() => Event::Command(command.unwrap_or(Command::Stop)),
            Some((key, step)) = self.progress.recv() => Event::Attempt(key, step),
            Some(ended) = self.tasks.join_next_with_id() => match ended {
                Ok((id, ())) => Event::AttemptOver(id, None),
                Err(error) => Event::AttemptOver(error.id(), Some(error.to_string())),
            },
            // A cancelled request has nothing to say.
            Some(answer) = self.answers.join_next() => Event::Answer(answer.unwrap_or(Answer::Nothing)),
            () = sleep_until(due) => Event::Due,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Command(command) => self.apply_command(command),
            Event::Attempt(key, step) => self.note_progress(key, step),
            Event::AttemptOver(id, panic) => self.forget_attempt(id, panic),
            Event::Answer(answer) => self.take_answer(answer),
            Event::Due => {}
        }
        self.do_what_is_due();
    }

    fn take_answer(&mut self, answer: Answer) {
        let current = self.pool.number;
        match answer {
            Answer::Sampled(machine, sample) => {
                self.machine = Some(machine);
                self.sample = sample;
                self.judge();
            }
            Answer::Joined(joined, reply) => {
                let joined = joined.and_then(|identity| self.enter_pool(identity));
                self.publish();
                // Who asked may have gone.
                let _ = reply.send(joined);
            }
            Answer::Registered(pool, reply) if pool == current => self.note_registered(reply),
            Answer::Heartbeat(pool, beat, reply) if pool == current => {
                self.note_heartbeat(&beat, reply);
            }
            Answer::Claimed(pool, asked_at, reply) if pool == current => {
                self.note_claimed(asked_at, reply);
            }
            Answer::Registered(..)
            | Answer::Heartbeat(..)
            | Answer::Claimed(..)
            | Answer::Nothing => {}
        }
    }

    fn apply_command(&mut self, command: Command) {
        match command {
            Command::SetPaused(paused) => {
                self.identity.paused = paused;
                self.judge();
                if let Err(error) = self.identity.store(&self.folders.identity()) {
                    tracing::warn!(error = %error, "pause is not kept over a restart");
                }
            }
            Command::Join { code, reply } => self.start_join(code, reply),
            Command::History { limit, reply } => {
                let history = self.tools.history.clone();
                self.answers.spawn(async move {
                    drop(reply.send(history.newest(limit).await));
                    Answer::Nothing
                });
            }
            Command::Stop => self.start_stopping(),
            #[cfg(test)]
            Command::BreakOff => {
                self.held.clear();
                self.pool.registered = false;
                self.stopping = Some(Instant::now());
            }
        }
    }

    /// Ends what runs; what is reported meanwhile need not be given back.
    fn start_stopping(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!("worker stops");
        self.stopping = Some(Instant::now() + STOP_LIMIT);
        self.stop_claiming();
        self.give_back_waiting(FailureKind::WorkerStopping, "the worker is shutting down");
        self.end_running(KillReason::WorkerStopping);
    }

    /// Whether nothing is left to wait for. What is on disk goes out at the next start, so only a coordinator that
    /// answers is worth waiting for.
    fn is_done(&self) -> bool {
        let Some(limit) = self.stopping else { return false };
        let spooled = self.held.values().all(|held| held.phase == Phase::Reporting);
        let answers = matches!(self.pool.connection, Connection::Connected { .. });
        self.held.is_empty() || (spooled && !answers) || Instant::now() >= limit
    }

    /// The earliest moment at which something has to be done.
    fn next_due(&self) -> Option<Instant> {
        let leases = self.held.values().filter(|held| held.phase == Phase::Running);
        let leases = leases.map(|held| held.lease_until);
        let evict = self.evict_at();
        let sample = self.sample_at.filter(|_| self.machine.is_some());
        let register = self.pool.register_at;
        let heartbeat = self.pool.heartbeat_at.filter(|_| !self.pool.heartbeat_running);
        let claim = self.wants_work().then_some(self.pool.claim_at);
        let ahead = self.ahead.ends_at();
        let own = [evict, sample, register, heartbeat, claim, ahead, self.stopping];
        leases.chain(own.into_iter().flatten()).min()
    }

    /// When what is frozen is to move elsewhere.
    fn evict_at(&self) -> Option<Instant> {
        let frozen = matches!(self.decision, Decision::Suspend(_)) && self.busy_slots() > 0;
        self.suspended_since.filter(|_| frozen).map(|since| since + policy::EVICT_AFTER)
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.sample_at.is_some_and(|at| at <= now) {
            self.look_at_pc(now);
        }
        if self.evict_at().is_some_and(|at| at <= now) {
            self.judge();
        }
        self.end_expired(now);
        self.give_back_late(now);
        if self.pool.register_at.is_some_and(|at| at <= now) {
            self.start_register();
        }
        if self.pool.heartbeat_at.is_some_and(|at| at <= now) && !self.pool.heartbeat_running {
            self.start_heartbeat();
        }
        if self.wants_work() && self.pool.claim_at <= now {
            self.start_claim();
        }
    }

    fn look_at_pc(&mut self, now: Instant) {
        let Some(mut machine) = self.machine.take() else { return };
        let working = self.held.values().any(|held| held.phase == Phase::Running);
        let every = if working { SAMPLE_EVERY_WORKING } else { SAMPLE_EVERY };
        self.sample_at = Some(now + every);
        self.answers.spawn(async move {
            let looked = tokio::task::spawn_blocking(move || {
                let sample = machine.sample(working);
                (machine, sample)
            });
            // Without the machine nobody can tell any more whether the owner is there.
            looked
                .await
                .map_or(Answer::Nothing, |(machine, sample)| Answer::Sampled(machine, sample))
        });
    }

    const fn state(&self, working: bool) -> WorkerState {
        if self.stopping.is_some() || self.pool.draining {
            WorkerState::Draining
        } else if self.decision.reason().is_some() {
            WorkerState::Suspended
        } else if working {
            WorkerState::Working
        } else {
            WorkerState::Ready
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
