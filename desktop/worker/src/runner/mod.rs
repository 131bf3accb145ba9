//! Runs one attempt: makes its folder, unpacks the input, runs the lines, brings the outputs together.
//! Knows no network.

mod control;
mod folder;
mod outputs;
mod pump;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use bytes::Bytes;
use lull_shared::{archive, jobs::FailureKind, output::Stream};
use tokio::{sync::mpsc, task};

pub use control::{Control, Controlled, KillReason};
pub use folder::remove_folder;
pub use outputs::Outputs;

use crate::sandbox::{Exit, Launch, Sandbox, SandboxError, SandboxProcess};
use control::Wish;
use pump::Pumps;

/// The folder the job sees, in the attempt's folder.
const WORK: &str = "work";

/// What to run and where.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The attempt's folder. It is made (what was there is removed); the job sees only `work` in it, which is
    /// gone when the run ends; `outputs.zip` stays in it. The caller removes it with [`remove_folder`].
    pub folder: PathBuf,
    /// The command, lines separated by `\n`.
    pub command: String,
    /// The job's environment variables.
    pub env: BTreeMap<String, String>,
    /// A zip to unpack into `work`; it is checked again here.
    pub input: Option<PathBuf>,
    /// Patterns of the files to bring home, relative to `work`.
    pub outputs: Vec<String>,
    /// What the input may unpack to, and what the outputs may come to.
    pub limits: archive::Limits,
}

/// Output as it comes: which stream, and the raw bytes. A full channel holds the job's writes back.
pub type OutputSink = mpsc::Sender<(Stream, Bytes)>;

/// How a run ended, and what it brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// How it ended.
    pub ending: RunEnding,
    /// The outputs, when patterns were given and files matched. Collected after a failed line too.
    pub outputs: Option<Outputs>,
    /// Things a person should know that are no failure: a pattern that matched nothing.
    pub notes: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnding {
    /// The lines ran until the last one, or until one failed.
    Exited {
        /// Exit code of the last line that ran; 128 and its number after a signal.
        exit_code: i32,
        /// What went wrong beyond the code, for a person: `line 2 was ended by signal 9 (exit code 137)`.
        error_message: Option<String>,
    },
    /// It was killed through [`Control::kill`]; its tree is dead.
    Killed(KillReason),
    /// It could not be run, or its outputs not be brought home.
    Failed {
        /// Why; goes to the coordinator as it is.
        kind: FailureKind,
        /// The same for a person.
        message: String,
    },
}

/// Runs one attempt to its end. It never fails as a function: whatever happens is an ending, a defect too. When it
/// returns, no process of the job is left and all its output went to `sink`.
pub async fn run(
    spec: RunSpec,
    sandbox: Arc<dyn Sandbox>,
    sink: OutputSink,
    control: Controlled,
) -> RunOutcome {
    // A task of its own: a panic ends the attempt and not the worker. Dropping the set ends the task, so nobody who
    // stops waiting leaves a job behind.
    let folder = spec.folder.clone();
    let mut attempt = task::JoinSet::new();
    attempt.spawn(run_here(spec, sandbox, sink, control));
    let error = match attempt.join_next().await {
        Some(Ok(outcome)) => return outcome,
        Some(Err(error)) => error.to_string(),
        None => "it is gone".to_owned(),
    };
    folder::remove(folder.join(WORK)).await;
    RunOutcome::failed(FailureKind::Internal, format!("the attempt broke off: {error}"))
}

async fn run_here(
    spec: RunSpec,
    sandbox: Arc<dyn Sandbox>,
    sink: OutputSink,
    mut control: Controlled,
) -> RunOutcome {
    let work = spec.folder.join(WORK);
    let outcome = match run_in(&spec, sandbox.as_ref(), sink, &mut control).await {
        Ok(outcome) => outcome,
        Err(Stop::Killed(reason)) => RunOutcome::of(RunEnding::Killed(reason)),
        Err(Stop::Failed(kind, message)) => RunOutcome::failed(kind, message),
    };
    folder::remove(work).await;
    outcome
}

/// Why a run ends before its lines did.
enum Stop {
    Killed(KillReason),
    Failed(FailureKind, String),
}

async fn run_in(
    spec: &RunSpec,
    sandbox: &dyn Sandbox,
    sink: OutputSink,
    control: &mut Controlled,
) -> Result<RunOutcome, Stop> {
    let patterns = outputs::Patterns::new(&spec.outputs)
        .map_err(|message| Stop::Failed(FailureKind::OutputsRefused, message))?;
    folder::prepare(spec, control).await?;

    let lines: Vec<String> = spec.command.lines().map(str::to_owned).collect();
    let ending = if lines.iter().all(|line| line.trim().is_empty()) {
        RunEnding::Exited {
            exit_code: 0,
            error_message: Some("the command has no line".to_owned()),
        }
    } else {
        // The sandbox starts elsewhere, where a relative path means something else.
        let folder = std::path::absolute(spec.folder.join(WORK))
            .map_err(|error| Stop::Failed(FailureKind::Internal, error.to_string()))?;
        let launch = Launch { folder, lines, env: spec.env.clone() };
        let exit = execute(&launch, sandbox, sink, control).await?;
        RunEnding::Exited { exit_code: exit.code, error_message: what_happened(exit) }
    };
    let mut outcome = RunOutcome::of(ending);
    if !spec.outputs.is_empty() {
        outputs::bring(patterns, spec, &mut outcome).await;
    }
    Ok(outcome)
}

/// Runs the lines, and holds, lets go or kills them as the control wishes.
async fn execute(
    launch: &Launch,
    sandbox: &dyn Sandbox,
    sink: OutputSink,
    control: &mut Controlled,
) -> Result<Exit, Stop> {
    control.until_running().await.map_err(Stop::Killed)?;
    let started = sandbox.start(launch).await.map_err(|error| could_not_start(&error))?;
    let mut process = started.process;
    let pumps = Pumps::start(started.stdout, started.stderr, sink);
    let watched = watch(process.as_mut(), control).await;
    if watched.is_err()
        && let Err(error) = process.kill().await
    {
        tracing::error!(error = %error_chain(&error), "a job's processes could not be killed");
    }
    pumps.finish(watched.is_ok()).await;
    watched
}

async fn watch(process: &mut dyn SandboxProcess, control: &mut Controlled) -> Result<Exit, Stop> {
    let mut suspended = false;
    loop {
        match control.wish() {
            Wish::Kill(reason) => return Err(Stop::Killed(reason)),
            Wish::Suspend if !suspended => {
                process.suspend().await.map_err(|error| internal(&error))?;
                suspended = true;
            }
            Wish::Run if suspended => {
                process.resume().await.map_err(|error| internal(&error))?;
                suspended = false;
            }
            Wish::Run | Wish::Suspend => {}
        }
        tokio::select! {
            exit = process.wait() => return exit.map_err(|error| internal(&error)),
            () = control.changed() => {}
        }
    }
}

/// What a person should know about the last line besides its exit code.
fn what_happened(exit: Exit) -> Option<String> {
    let Exit { line, code } = exit;
    match code {
        0 => None,
        126 => Some(format!("line {line}: the program cannot be executed (exit code 126)")),
        127 => Some(format!("line {line}: command not found (exit code 127)")),
        129..=192 => {
            Some(format!("line {line} was ended by signal {} (exit code {code})", code - 128))
        }
        _ => Some(format!("line {line} ended with exit code {code}")),
    }
}

fn could_not_start(error: &SandboxError) -> Stop {
    Stop::Failed(FailureKind::SandboxUnavailable, error_chain(error))
}

fn internal(error: &SandboxError) -> Stop {
    Stop::Failed(FailureKind::Internal, error_chain(error))
}

/// An error and what caused it, on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

impl RunOutcome {
    const fn of(ending: RunEnding) -> Self {
        Self { ending, outputs: None, notes: Vec::new() }
    }

    const fn failed(kind: FailureKind, message: String) -> Self {
        Self::of(RunEnding::Failed { kind, message })
    }
}
