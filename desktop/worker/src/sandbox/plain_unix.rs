//! A job as a plain tree of processes: for systems without a sandbox of their own, and reported as such.
//!
//! It contains nothing. It still kills what it started: by control group or by what `/proc` shows on Linux, by process
//! group elsewhere, where a process that leaves its group escapes.

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use lull_shared::workers::SandboxLevel;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::{
    Exit, Launch, Program, Sandbox, SandboxError, SandboxProcess, Started,
    driver::{self, Plan, Reports},
    spawner,
};
#[cfg(target_os = "linux")]
use super::{orphans, tree};

/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// Names the processes of one job by a variable in their environment.
const MARKER: &str = "LULL_PROCESS_TREE";

/// Starts jobs without containing them.
#[derive(Debug)]
pub struct PlainTree {
    detail: String,
}

impl PlainTree {
    /// A plain tree, and why nothing better is used, for a person.
    #[must_use]
    pub const fn new(detail: String) -> Self {
        Self { detail }
    }
}

#[async_trait]
impl Sandbox for PlainTree {
    fn level(&self) -> SandboxLevel {
        SandboxLevel::L0
    }

    fn detail(&self) -> &str {
        &self.detail
    }

    async fn start(&self, launch: &Launch) -> Result<Started, SandboxError> {
        static STARTED: AtomicU64 = AtomicU64::new(0);

        let plan = Plan::new(launch)?;
        let error = |source| SandboxError::Start {
            detail: "the shell does not run".to_owned(),
            source: Some(source),
        };
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let marker = format!("{}-{number}", std::process::id());
        let (stdin, mut reports) = match plan.only_line {
            Some(_) => (Stdio::null(), None),
            None => {
                let (writer, reports) = Reports::new().map_err(error)?;
                (driver::stdin(writer), Some(reports))
            }
        };
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.arguments)
            .current_dir(&launch.folder)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &launch.folder)
            .env("LANG", "C.UTF-8")
            .envs(&launch.env)
            .env(MARKER, &marker)
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = spawner::spawn(command).await;
        let mut child = spawned.map_err(|source| match &launch.program {
            Program::Argv(_) if is_the_program_s(&source) => SandboxError::Program {
                detail: format!("could not run {}: {source}", plan.program.display()),
            },
            Program::Argv(_) | Program::Lines { .. } => error(source),
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pipes = child.stdout.take().zip(child.stderr.take()).zip(group);
        let ((stdout, stderr), group) = pipes.ok_or_else(|| error(io::ErrorKind::Other.into()))?;
        step_back(group);
        let marker = format!("{MARKER}={marker}");
        if let Some(reports) = &mut reports {
            reports.begun().await;
        }
        let process = Tree { child, group, marker, exit: None, reports, only_line: plan.only_line };
        Ok(Started {
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            process: Box::new(process),
        })
    }
}

/// One job as a plain tree.
struct Tree {
    child: Child,
    group: Pid,
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only /proc shows the environment")
    )]
    marker: String,
    /// What the script says, when one runs several lines.
    reports: Option<Reports>,
    only_line: Option<u32>,
    exit: Option<Exit>,
}

impl Tree {
    #[cfg(target_os = "linux")]
    fn find(&self) -> impl Fn() -> std::collections::BTreeSet<i32> + use<'_> {
        // The script's process is the root only as long as it is not awaited: later its number may be another's.
        let root = self.child.id().and_then(|id| i32::try_from(id).ok());
        move || {
            let mut found = tree::marked(&self.marker);
            found.extend(root.map(tree::processes).unwrap_or_default());
            found
        }
    }

    async fn end_all(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.child.id().is_some() || !orphans::none_has(&self.marker) {
            tree::kill(self.find()).await?;
        }
        self.kill_now();
        self.child.wait().await?;
        Ok(())
    }

    fn kill_now(&self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

#[async_trait]
impl SandboxProcess for Tree {
    async fn wait(&mut self) -> Result<Exit, SandboxError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let error = |source| SandboxError::Handle { act: "wait for", source };
        let status = match &mut self.reports {
            Some(reports) => reports.until(self.child.wait()).await,
            None => self.child.wait().await,
        };
        let status = status.map_err(error)?;
        self.end_all().await.map_err(error)?;
        if let Some(reports) = &mut self.reports {
            reports.finish().await;
        }
        let reported = self.reports.as_ref().map(Reports::decisive_line);
        let line = reported.or(self.only_line).unwrap_or_default();
        let exit = Exit { line, code: code_of(status) };
        self.exit = Some(exit);
        Ok(exit)
    }

    async fn suspend(&mut self) -> Result<(), SandboxError> {
        #[cfg(target_os = "linux")]
        let stopped = tree::stop(self.find()).await;
        #[cfg(not(target_os = "linux"))]
        let stopped = kill_process_group(self.group, Signal::STOP).map_err(io::Error::from);
        stopped.map_err(|source| SandboxError::Handle { act: "suspend", source })
    }

    async fn resume(&mut self) -> Result<(), SandboxError> {
        #[cfg(target_os = "linux")]
        tree::go_on(self.find());
        #[cfg(not(target_os = "linux"))]
        kill_process_group(self.group, Signal::CONT)
            .map_err(|error| SandboxError::Handle { act: "resume", source: error.into() })?;
        Ok(())
    }

    async fn kill(&mut self) -> Result<(), SandboxError> {
        self.end_all().await.map_err(|source| SandboxError::Handle { act: "kill", source })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill_now();
        }
    }
}

/// Whether a start failed because of what was to be started, not because of this PC.
fn is_the_program_s(error: &io::Error) -> bool {
    const ENOEXEC: i32 = 8;
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::ArgumentListTooLong
            | io::ErrorKind::InvalidInput
    ) || error.raw_os_error() == Some(ENOEXEC)
}

/// Puts the tree behind everything else on the PC; done without where the system does not let us.
fn step_back(group: Pid) {
    let _ = rustix::process::setpriority_pgrp(Some(group), 19);
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
