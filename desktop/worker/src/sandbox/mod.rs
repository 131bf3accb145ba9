//! How a job's lines are kept apart from the PC: one trait, a contained form and a plain one.

#[cfg(target_os = "linux")]
mod bubblewrap;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod etc;
#[cfg(target_os = "linux")]
mod orphans;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod said;
#[cfg(target_os = "linux")]
mod tree;

#[cfg(unix)]
mod driver;
#[cfg(unix)]
mod spawner;

#[cfg_attr(unix, path = "plain_unix.rs")]
#[cfg_attr(windows, path = "plain_windows.rs")]
mod plain;

use std::{collections::BTreeMap, fmt, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use lull_shared::{
    jobs::{OnError, Shell},
    workers::SandboxLevel,
};
use tokio::io::AsyncRead;

pub use plain::PlainTree;

#[cfg(all(test, target_os = "linux"))]
pub(crate) fn common_arguments() -> Vec<std::ffi::OsString> {
    bubblewrap::common_arguments(true)
}

/// What to start, and where.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The job's folder; the program runs in it and may write only there.
    pub folder: PathBuf,
    /// What runs.
    pub program: Program,
    /// The job's environment variables. They exist only inside the sandbox.
    pub env: BTreeMap<String, String>,
}

/// What a job runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Lines that run in order, each in a shell of its own. Blank ones are skipped and still counted.
    Lines {
        /// The lines.
        lines: Vec<String>,
        /// What reads them; none for the system's own shell.
        shell: Option<Shell>,
        /// What follows a line that failed.
        on_error: OnError,
    },
    /// A program and its arguments, as they are: no shell sees them.
    Argv(Vec<String>),
}

impl Program {
    /// The lines of a text, for the system's own shell, until one fails.
    #[must_use]
    pub fn lines(command: &str) -> Self {
        let lines = command.lines().map(str::to_owned).collect();
        Self::Lines { lines, shell: None, on_error: OnError::Stop }
    }

    /// Whether there is nothing to run.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Lines { lines, .. } => lines.iter().all(|line| line.trim().is_empty()),
            Self::Argv(argv) => argv.is_empty(),
        }
    }
}

/// Starts jobs and says how well it contains them.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync {
    /// How well jobs are contained, by the test at start.
    fn level(&self) -> SandboxLevel;

    /// What that test found, for a person.
    fn detail(&self) -> &str;

    /// Starts the program. Nothing is left running when it fails.
    async fn start(&self, launch: &Launch) -> Result<Started, SandboxError>;
}

/// A running job: its two pipes and the handle on its processes.
pub struct Started {
    /// What it writes to standard output.
    pub stdout: Pipe,
    /// What it writes to standard error.
    pub stderr: Pipe,
    /// The processes.
    pub process: Box<dyn SandboxProcess>,
}

/// The reading end of a job's pipe.
pub type Pipe = Box<dyn AsyncRead + Send + Unpin>;

/// All processes of one job, however far they wandered. Dropping it kills them.
#[async_trait]
pub trait SandboxProcess: Send {
    /// Waits until the last line or the program ended; then every other process of the job is dead
    /// too. May be dropped and called again.
    async fn wait(&mut self) -> Result<Exit, SandboxError>;

    /// Freezes every process of the job: it uses no processor time until [`SandboxProcess::resume`].
    async fn suspend(&mut self) -> Result<(), SandboxError>;

    /// Lets a suspended job go on where it stood.
    async fn resume(&mut self) -> Result<(), SandboxError>;

    /// Ends every process of the job, suspended or not. When it returns, none is left.
    async fn kill(&mut self) -> Result<(), SandboxError>;
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Number of the line that decided, 1 for the first: the last that ran, or the last that failed when lines go on
    /// after a failure.
    pub line: u32,
    /// Its exit code; a signal's is 128 and its number, as shells have it.
    pub code: i32,
}

/// Why a job could not be started or handled.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system refused to start the sandbox or the shell in it.
    #[error("could not start the sandbox: {detail}")]
    Start {
        /// What the sandbox's own program said, for a person.
        detail: String,
        /// What the system said.
        #[source]
        source: Option<io::Error>,
    },
    /// What was to run does not exist or cannot be started, here and everywhere.
    #[error("{detail}")]
    Program {
        /// Which program, and why not.
        detail: String,
    },
    /// A running job could not be suspended, resumed, killed or waited for.
    #[error("could not {act} the job's processes")]
    Handle {
        /// `suspend`, `resume`, `kill` or `wait for`.
        act: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Finds the best sandbox of this PC and tests it: what succeeds outside must fail inside.
///
/// Called once, at start, inside the runtime that will run the jobs.
pub async fn default_sandbox() -> Arc<dyn Sandbox> {
    #[cfg(target_os = "linux")]
    let why = match bubblewrap::Bubblewrap::find().await {
        Ok(sandbox) => return Arc::new(sandbox),
        Err(error) => format!("jobs are not contained: {error}"),
    };
    #[cfg(not(target_os = "linux"))]
    let why = "jobs are not contained: this system's own containment is not used yet".to_owned();
    Arc::new(PlainTree::new(why))
}

/// Plain process trees, where somebody wants no more.
#[must_use]
pub fn plain_sandbox() -> Arc<dyn Sandbox> {
    Arc::new(PlainTree::new(
        "jobs are not contained: this worker was started with --plain".to_owned(),
    ))
}
