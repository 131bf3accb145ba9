//! Runs one attempt: makes its folder, unpacks the input, runs the lines, brings the outputs together.
//! Knows no network.

mod control;
mod folder;
mod outputs;
mod pump;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use lull_shared::{archive, jobs::FailureKind, output::Stream};
use tokio::{
    sync::mpsc,
    task,
    time::{Instant, sleep},
};

pub use control::{Control, Controlled, KillReason};
pub use folder::remove_folder;
pub(crate) use folder::{holds_only_work, make as make_folder};
pub use outputs::Outputs;

pub use crate::sandbox::Program;

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
    /// What to run.
    pub program: Program,
    /// The job's environment variables.
    pub env: BTreeMap<String, String>,
    /// How long it may run; time in which it is suspended does not count.
    pub time_limit: Option<Duration>,
    /// A zip to unpack into `work`; it is checked again here.
    pub input: Option<PathBuf>,
    /// Patterns of the files to bring home, relative to `work`.
    pub outputs: Vec<String>,
    /// What the input may unpack to, and what the outputs may come to.
    pub limits: archive::Limits,
    /// Whether a `work` that the job left as it found it stays, for the next run in the same folder.
    pub keeps_work: bool,
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
    /// The program ran, or the lines did until the last one, or until one failed.
    Exited {
        /// Exit code of the line that decided: the last that ran or, where lines go on, the last that failed; 128 and its number after a signal.
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
        Err(Stop::TimedOut(limit)) => {
            let message = format!("the command ran longer than its limit of {} s", limit.as_secs());
            RunOutcome::failed(FailureKind::TimedOut, message)
        }
        Err(Stop::Failed(kind, message)) => RunOutcome::failed(kind, message),
    };
    if !(spec.keeps_work && folder::is_as_new(&work)) {
        folder::remove(work).await;
    }
    outcome
}

/// Why a run ends before its program did.
enum Stop {
    Killed(KillReason),
    TimedOut(Duration),
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

    let ending = if spec.program.is_empty() {
        RunEnding::Exited {
            exit_code: 0,
            error_message: Some("the command has no line".to_owned()),
        }
    } else {
        // The sandbox starts elsewhere, where a relative path means something else.
        let folder = std::path::absolute(spec.folder.join(WORK))
            .map_err(|error| Stop::Failed(FailureKind::Internal, error.to_string()))?;
        let launch = Launch { folder, program: spec.program.clone(), env: spec.env.clone() };
        let exit = execute(&launch, spec.time_limit, sandbox, sink, control).await?;
        let error_message = what_happened(&spec.program, exit);
        RunEnding::Exited { exit_code: exit.code, error_message }
    };
    let mut outcome = RunOutcome::of(ending);
    if !spec.outputs.is_empty() {
        outputs::bring(patterns, spec, &mut outcome).await;
    }
    Ok(outcome)
}

/// Runs the program, and holds, lets go or kills it as the control and the time limit wish.
async fn execute(
    launch: &Launch,
    time_limit: Option<Duration>,
    sandbox: &dyn Sandbox,
    sink: OutputSink,
    control: &mut Controlled,
) -> Result<Exit, Stop> {
    control.until_running().await.map_err(Stop::Killed)?;
    let started = sandbox.start(launch).await.map_err(|error| stop(&error))?;
    let mut process = started.process;
    let pumps = Pumps::start(started.stdout, started.stderr, sink);
    let watched = watch(process.as_mut(), time_limit, control).await;
    if watched.is_err()
        && let Err(error) = process.kill().await
    {
        tracing::error!(error = %error_chain(&error), "a job's processes could not be killed");
    }
    // Who ran out of time still is told everything up to then.
    pumps.finish(matches!(watched, Ok(_) | Err(Stop::TimedOut(_)))).await;
    watched
}

async fn watch(
    process: &mut dyn SandboxProcess,
    time_limit: Option<Duration>,
    control: &mut Controlled,
) -> Result<Exit, Stop> {
    let mut suspended = false;
    let mut left = time_limit.unwrap_or(Duration::MAX);
    loop {
        match control.wish() {
            Wish::Kill(reason) => return Err(Stop::Killed(reason)),
            Wish::Suspend if !suspended => {
                process.suspend().await.map_err(|error| stop(&error))?;
                suspended = true;
            }
            Wish::Run if suspended => {
                process.resume().await.map_err(|error| stop(&error))?;
                suspended = false;
            }
            Wish::Run | Wish::Suspend => {}
        }
        let since = Instant::now();
        tokio::select! {
            exit = process.wait() => return exit.map_err(|error| stop(&error)),
            () = control.changed() => {}
            () = sleep(left), if time_limit.is_some() && !suspended => {
                return Err(Stop::TimedOut(time_limit.unwrap_or_default()));
            }
        }
        if !suspended {
            left = left.saturating_sub(since.elapsed());
        }
    }
}

/// What a person should know about the line that decided, or the program, besides its exit code.
fn what_happened(program: &Program, exit: Exit) -> Option<String> {
    let Exit { line, code } = exit;
    let (who, by_shell) = match program {
        Program::Lines { .. } => (format!("line {line}"), true),
        Program::Argv(_) => ("the program".to_owned(), false),
    };
    match code {
        0 => None,
        126 if by_shell => Some(format!("{who}: the program cannot be executed (exit code 126)")),
        127 if by_shell => Some(format!("{who}: command not found (exit code 127)")),
        129..=192 => Some(format!("{who} was ended by signal {} (exit code {code})", code - 128)),
        _ => Some(format!("{who} ended with exit code {code}")),
    }
}

fn stop(error: &SandboxError) -> Stop {
    let kind = match error {
        SandboxError::Program { .. } => FailureKind::ExecFailed,
        SandboxError::Start { .. } => FailureKind::SandboxUnavailable,
        SandboxError::Handle { .. } => FailureKind::Internal,
    };
    Stop::Failed(kind, error_chain(error))
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
