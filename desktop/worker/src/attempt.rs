//! One attempt from the claim to the recorded result: input, run, output, report.
//!
//! The attempt number goes out with every write. Once the coordinator has begun a later attempt, nothing sent from here
//! can change the job.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use lull_shared::{
    archive,
    client::ClientError,
    ids::Digest,
    jobs::{Assignment, AttemptEnding, FailureKind, LeaseKey, Network, OutputPart},
    local::LocalAttempt,
    problem::ProblemKind,
    time::{Clock, Timestamp},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};

use crate::{
    api::{CoordinatorApi, Verdict, verdict},
    backoff::Backoff,
    cache::{Cache, Held},
    courier::Courier,
    deliver::{self, Kept},
    folders::JobFolders,
    history::{Ended, History, Written},
    identity::innermost,
    output,
    runner::{self, Control, Controlled, KillReason, Program, RunEnding, RunOutcome, RunSpec},
    sandbox::Sandbox,
    spool::{End, Report, Spool, file_stem},
};

/// Chunks of output on their way from the pipes to the coordinator.
const SINK_CHUNKS: usize = 16;
/// How often an input is asked for when what arrives is not what was announced.
const WRONG_INPUTS_MAX: u32 = 3;
/// A report of a run shorter than this goes out before it is on disk: running again costs less than the wait.
const SHORT_RUN: Duration = Duration::from_secs(1);

/// What every attempt works with.
pub(crate) struct Tools {
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) spool: Spool,
    pub(crate) cache: Arc<Cache>,
    pub(crate) history: History,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) folders: JobFolders,
    /// What the owner lets jobs reach of the network.
    pub(crate) network: Network,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing of it runs any more: its slot is free.
    Ran,
    /// How it ended is on disk; the rest can wait for another day.
    Spooled,
}

/// What the loop wishes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Go,
    Hold,
    End(KillReason),
}

/// The loop's hold on an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Steering {
    control: Control,
    wish: watch::Sender<Wish>,
}

/// The attempt's side of it.
pub(crate) struct Steered {
    pub(crate) control: Control,
    controlled: Controlled,
    pub(crate) wishes: Wishes,
}

/// Hears what the loop wishes.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    wish: watch::Receiver<Wish>,
}

impl Steering {
    pub(crate) fn new() -> (Self, Steered) {
        let (control, controlled) = Control::new();
        let (sender, wish) = watch::channel(Wish::Go);
        let wishes = Wishes { wish };
        (Self { control: control.clone(), wish: sender }, Steered { control, controlled, wishes })
    }

    /// Freezes it.
    pub(crate) fn hold(&self) {
        self.control.suspend();
        self.change(Wish::Hold);
    }

    /// Lets it go on.
    pub(crate) fn go(&self) {
        self.control.resume();
        self.change(Wish::Go);
    }

    /// Ends it. The first reason counts for what is reported; a lost lease also stops the report.
    pub(crate) fn end(&self, reason: KillReason) {
        self.control.kill(reason);
        self.change(Wish::End(reason));
    }

    fn change(&self, to: Wish) {
        self.wish.send_if_modified(|wish| {
            let changes = match *wish {
                Wish::Go | Wish::Hold => *wish != to,
                Wish::End(reason) => {
                    reason != KillReason::LeaseLost && to == Wish::End(KillReason::LeaseLost)
                }
            };
            if changes {
                *wish = to;
            }
            changes
        });
    }
}

impl Wishes {
    /// Returns when the attempt is to end.
    pub(crate) async fn ended(&mut self) -> KillReason {
        match self.wish.wait_for(|wish| matches!(wish, Wish::End(_))).await.map(|wish| *wish) {
            Ok(Wish::End(reason)) => reason,
            // The loop is gone.
            Ok(Wish::Go | Wish::Hold) | Err(_) => KillReason::WorkerStopping,
        }
    }

    /// Returns when the attempt may run, or is to end.
    async fn may_run(&mut self) -> Result<(), KillReason> {
        match self.wish.wait_for(|wish| *wish != Wish::Hold).await.map(|wish| *wish) {
            Ok(Wish::Go | Wish::Hold) => Ok(()),
            Ok(Wish::End(reason)) => Err(reason),
            Err(_) => Err(KillReason::WorkerStopping),
        }
    }

    /// Returns when the lease is lost.
    pub(crate) async fn lease_lost(&mut self) {
        let lost = |wish: &Wish| *wish == Wish::End(KillReason::LeaseLost);
        if self.wish.wait_for(lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What the owner is told of an attempt that begins now.
pub(crate) fn describe(assignment: &Assignment, started_at: Timestamp) -> LocalAttempt {
    LocalAttempt {
        job_id: assignment.job_id,
        attempt: assignment.attempt,
        name: assignment.name.clone(),
        command: assignment.command.clone(),
        submitted_by: assignment.submitted_by.clone(),
        started_at,
        ended_at: None,
        ending: None,
        exit_code: None,
        error_message: None,
    }
}

/// Runs an attempt and stays with it until the coordinator has its result, or wants none. Nothing is said of it before it
/// is `recorded` in the PC's own history.
pub(crate) async fn run(
    assignment: Assignment,
    courier: Courier,
    tools: Arc<Tools>,
    mut steered: Steered,
    recorded: Written,
    progress: mpsc::UnboundedSender<(LeaseKey, Progress)>,
) {
    let key = assignment.key();
    let began = Instant::now();
    let folder = tools.folders.path(&file_stem(key));
    let tell = |step| {
        // A loop that is gone needs no telling.
        let _ = progress.send((key, step));
    };

    let ran =
        execute(&assignment, &courier.api, &tools, &mut steered, &folder, &|| tell(Progress::Ran))
            .await;
    tell(Progress::Ran);
    recorded.wait().await;
    let Some((report, zip)) = ran.into_report(key) else {
        tracing::info!(job.id = %key.job_id, attempt.number = key.attempt, "lease lost");
        let message = "the coordinator gave the job to another PC".to_owned();
        tools.note_end(key, AttemptEnding::WorkerLost, None, Some(message));
        tools.clear(folder).await;
        return;
    };
    let short = zip.is_none() && began.elapsed() < SHORT_RUN;
    let (report, kept) =
        if short { (report, Kept::InMemory) } else { tools.keep(report, zip).await };
    tools.note_report(&report);
    let spooled = || tell(Progress::Spooled);
    let delivered = async {
        tokio::select! {
            biased;
            () = steered.wishes.lease_lost() => tools.spool.remove(key),
            () = deliver::deliver(&courier, &tools.spool, report, kept, &spooled) => {}
        }
    };
    if short {
        // Until then the folder says after a crash that this attempt was cut off.
        delivered.await;
        tools.clear(folder).await;
    } else {
        spooled();
        tokio::join!(tools.clear(folder), delivered);
    }
}

/// How an attempt went on this PC.
enum Ran {
    Outcome(RunOutcome, Vec<OutputPart>),
    /// It ended before anything ran.
    Failed(FailureKind, String),
    Killed(KillReason),
}

async fn execute(
    assignment: &Assignment,
    api: &Arc<dyn CoordinatorApi>,
    tools: &Tools,
    steered: &mut Steered,
    folder: &Path,
    slot_is_free: &(dyn Fn() + Send + Sync),
) -> Ran {
    if assignment.min_sandbox > tools.sandbox.level() {
        let message = format!(
            "the job asks for isolation {}, this PC offers {}: {}",
            assignment.min_sandbox.name(),
            tools.sandbox.level().name(),
            tools.sandbox.detail()
        );
        return Ran::Failed(FailureKind::SandboxUnavailable, message);
    }
    if assignment.network > tools.network {
        let message =
            "the job asks for the internet, which this PC does not grant to jobs".to_owned();
        return Ran::Failed(FailureKind::SandboxUnavailable, message);
    }
    // From here on a worker that is started again knows by the folder that this attempt was cut off.
    if let Err(error) = tools.folders.make(folder) {
        return Ran::Failed(kind_of(&error), format!("could not make the job's folder: {error}"));
    }
    let input = match assignment.file_digest {
        None => None,
        Some(digest) => tokio::select! {
            biased;
            reason = steered.wishes.ended() => return Ran::Killed(reason),
            fetched = fetch(&tools.cache, digest, api.as_ref()) => match fetched {
                Ok(held) => Some(held),
                Err((kind, message)) => return Ran::Failed(kind, message),
            }
        },
    };
    if let Err(reason) = steered.wishes.may_run().await {
        return Ran::Killed(reason);
    }
    let spec = RunSpec {
        folder: folder.to_owned(),
        program: program(assignment),
        env: environment(assignment),
        time_limit: assignment.timeout_secs.map(|secs| Duration::from_secs(secs.into())),
        input: input.as_ref().map(Held::path),
        outputs: assignment.outputs.clone(),
        limits: archive::Limits::default(),
        keeps_work: true,
    };
    let (_, fresh) = Control::new();
    let controlled = std::mem::replace(&mut steered.controlled, fresh);
    let (sink, source) = mpsc::channel(SINK_CHUNKS);
    let (control, wishes) = (steered.control.clone(), steered.wishes.clone());
    let pump = output::pump(Arc::clone(api), assignment.key(), source, control, wishes);
    let run = async {
        let outcome = runner::run(spec, Arc::clone(&tools.sandbox), sink, controlled).await;
        slot_is_free();
        outcome
    };
    let (outcome, unsent) = tokio::join!(run, pump);
    Ran::Outcome(outcome, unsent)
}

fn program(assignment: &Assignment) -> Program {
    if !assignment.argv.is_empty() {
        return Program::Argv(assignment.argv.clone());
    }
    let lines = assignment.command.lines().map(str::to_owned).collect();
    Program::Lines { lines, shell: assignment.shell, on_error: assignment.on_error }
}

/// The job's own variables, and what names the attempt.
fn environment(assignment: &Assignment) -> BTreeMap<String, String> {
    let mut env = assignment.env.clone();
    env.insert("LULL_JOB_ID".to_owned(), assignment.job_id.to_string());
    env.insert("LULL_ATTEMPT".to_owned(), assignment.attempt.to_string());
    env
}

/// Gets the input, waiting for a network that is away. What is wrong with the input itself ends the attempt.
async fn fetch(
    cache: &Arc<Cache>,
    digest: Digest,
    api: &dyn CoordinatorApi,
) -> Result<Held, (FailureKind, String)> {
    let mut backoff = Backoff::default();
    let mut wrong = 0;
    loop {
        let error = match cache.fetch(digest, api).await {
            Ok(held) => return Ok(held),
            Err(error) => error,
        };
        if let ClientError::File { path: _, source } = &error {
            return Err((kind_of(source), format!("could not keep the input: {source}")));
        }
        wrong += u32::from(error.kind() == ProblemKind::DigestMismatch);
        let hopeless = verdict(&error) != Verdict::Later
            && (error.kind() != ProblemKind::DigestMismatch || wrong >= WRONG_INPUTS_MAX);
        if hopeless {
            let message = format!("could not fetch the input: {error}");
            return Err((FailureKind::InputUnavailable, message));
        }
        tracing::debug!(%digest, error = %innermost(&error), "input has to wait");
        tokio::time::sleep(backoff.next()).await;
    }
}

fn kind_of(error: &io::Error) -> FailureKind {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        FailureKind::DiskFull
    } else {
        FailureKind::Internal
    }
}

impl Ran {
    /// What to report, and the zip to bring home; nothing for a lease that is lost.
    fn into_report(self, key: LeaseKey) -> Option<(Report, Option<PathBuf>)> {
        let (end, zip, unsent) = match self {
            Self::Failed(kind, message) => (End::Failed { kind, message }, None, Vec::new()),
            Self::Killed(reason) => (killed(reason)?, None, Vec::new()),
            Self::Outcome(outcome, unsent) => match outcome.ending {
                RunEnding::Killed(reason) => (killed(reason)?, None, unsent),
                RunEnding::Failed { kind, message } => {
                    (End::Failed { kind, message }, None, unsent)
                }
                RunEnding::Exited { exit_code, error_message } => {
                    let notes = error_message.into_iter().chain(outcome.notes);
                    let error_message = notes.reduce(|all, note| format!("{all}; {note}"));
                    let zip = outcome.outputs.map(|outputs| outputs.path);
                    (End::Exited { exit_code, error_message }, zip, unsent)
                }
            },
        };
        Some((Report { key, end, has_outputs: zip.is_some(), unsent }, zip))
    }
}

fn killed(reason: KillReason) -> Option<End> {
    let (kind, message) = match reason {
        KillReason::Cancelled => (FailureKind::Cancelled, "a person cancelled the job"),
        KillReason::OwnerReturned => (FailureKind::OwnerReturned, "the PC's owner came back"),
        KillReason::WorkerStopping => (FailureKind::WorkerStopping, "the worker was shut down"),
        KillReason::LeaseLost => return None,
    };
    Some(End::Failed { kind, message: message.to_owned() })
}

impl Tools {
    /// Keeps an attempt's folder for another one, or removes it.
    pub(crate) async fn clear(&self, folder: PathBuf) {
        if self.folders.take_back(&folder) {
            return;
        }
        let removed = tokio::task::spawn_blocking(move || {
            runner::remove_folder(&folder).inspect_err(|error| {
                tracing::warn!(path = %folder.display(), error = %error, "job's folder was not removed");
            })
        });
        // A failure was told above.
        drop(removed.await);
    }

    /// Puts the report on disk. When the disk refuses, the report goes out from memory; without the zip, which the
    /// coordinator then hears of as a failure.
    async fn keep(&self, report: Report, zip: Option<PathBuf>) -> (Report, Kept) {
        match deliver::put_on_disk(&self.spool, &report, zip).await {
            Ok(()) => (report, Kept::OnDisk),
            Err(error) if report.has_outputs => {
                let message = format!("could not keep the outputs: {error}");
                (Report::failed(report.key, kind_of(&error), message), Kept::InMemory)
            }
            Err(_) => (report, Kept::InMemory),
        }
    }

    /// Writes down how an attempt ended here.
    pub(crate) fn note_report(&self, report: &Report) {
        match &report.end {
            End::Exited { exit_code, error_message } => {
                let ending = match exit_code {
                    0 => AttemptEnding::Succeeded,
                    _ => AttemptEnding::CommandFailed,
                };
                self.note_end(report.key, ending, Some(*exit_code), error_message.clone());
            }
            End::Failed { kind, message } => {
                self.note_end(report.key, kind.ending(), None, Some(message.clone()));
            }
        }
    }

    fn note_end(
        &self,
        key: LeaseKey,
        ending: AttemptEnding,
        exit_code: Option<i32>,
        error_message: Option<String>,
    ) {
        let at = self.clock.now();
        let reason = error_message.as_deref().unwrap_or_default();
        if ending == AttemptEnding::CouldNotRun {
            tracing::warn!(
                job.id = %key.job_id, attempt.number = key.attempt, reason, "attempt could not run"
            );
        } else {
            tracing::info!(
                job.id = %key.job_id, attempt.number = key.attempt, ending = ending.name(),
                "attempt ended"
            );
        }
        self.history.ended(key, Ended { at, ending, exit_code, error_message });
    }
}
