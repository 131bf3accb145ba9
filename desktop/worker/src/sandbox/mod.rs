//! How a job's lines are kept apart from the PC: one trait, a contained form and a plain one.

#[cfg(target_os = "linux")]
mod bubblewrap;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod probe;
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
use lull_shared::workers::SandboxLevel;
use tokio::io::AsyncRead;

pub use plain::PlainTree;

/// What to start: lines that run in order in one folder until one fails.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The job's folder; the lines run in it and may write only there.
    pub folder: PathBuf,
    /// The lines, each given to a shell of its own. Blank ones are skipped and still counted.
    pub lines: Vec<String>,
    /// The job's environment variables. They exist only inside the sandbox.
    pub env: BTreeMap<String, String>,
}

/// Starts jobs and says how well it contains them.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync {
    /// How well jobs are contained, by the test at start.
    fn level(&self) -> SandboxLevel;

    /// What that test found, for a person.
    fn detail(&self) -> &str;

    /// Starts the lines. Nothing is left running when it fails.
    async fn start(&self, launch: &Launch) -> Result<Started, SandboxError>;
}

/// A running job: its two pipes and the handle on its processes.
pub struct Started {
    /// What the lines write to standard output.
    pub stdout: Pipe,
    /// What the lines write to standard error.
    pub stderr: Pipe,
    /// The processes.
    pub process: Box<dyn SandboxProcess>,
}

/// The reading end of a job's pipe.
pub type Pipe = Box<dyn AsyncRead + Send + Unpin>;

/// All processes of one job, however far they wandered. Dropping it kills them.
#[async_trait]
pub trait SandboxProcess: Send {
    /// Waits until the last line ended or one failed; then every other process of the job is dead
    /// too. May be dropped and called again.
    async fn wait(&mut self) -> Result<Exit, SandboxError>;

    /// Freezes every process of the job: it uses no processor time until [`SandboxProcess::resume`].
    async fn suspend(&mut self) -> Result<(), SandboxError>;

    /// Lets a suspended job go on where it stood.
    async fn resume(&mut self) -> Result<(), SandboxError>;

    /// Ends every process of the job, suspended or not. When it returns, none is left.
    async fn kill(&mut self) -> Result<(), SandboxError>;
}

/// How the lines ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Number of the last line that ran, 1 for the first.
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
