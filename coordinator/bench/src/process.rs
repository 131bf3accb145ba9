//! One program of Lull as a process: started, watched, killed without mercy, and dead when dropped.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// How long anything may take that normally takes a fraction of a second.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program; its log goes to a file that is shown when something fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    ///
    /// # Errors
    /// When the program is not there or the log cannot be opened.
    pub fn start(program: &Path, log: PathBuf, args: &[String]) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let out = fs::File::options().create(true).append(true).open(&log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        Ok(Self { name, child, log })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would: no handler runs.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends it a signal by name, such as `STOP` or `CONT`.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status()?;
        anyhow::ensure!(sent.success(), "could not send {name} to {}", self.name);
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let asked = Command::new("kill").arg(self.pid().to_string()).status()?;
        anyhow::ensure!(asked.success(), "could not signal {}", self.name);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("{} did not end after SIGTERM\n{}", self.name, self.log());
            }
            pause();
        }
    }

    /// Waits for a file that the program writes when it is ready.
    ///
    /// # Errors
    /// When the program ends or does not get ready in time; its log is in the message.
    pub fn wait_for_file(&mut self, file: &Path) -> anyhow::Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = fs::read_to_string(file)
                && !text.is_empty()
            {
                return Ok(text);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}\n{}", self.name, self.log());
            }
            if Instant::now() > until {
                bail!("{} did not get ready\n{}", self.name, self.log());
            }
            pause();
        }
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The most memory it has held so far, in bytes.
    ///
    /// # Errors
    /// When the process is gone or the system does not tell.
    pub fn peak_memory_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// The memory it holds now, in bytes.
    ///
    /// # Errors
    /// When the process is gone or the system does not tell.
    pub fn memory_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .context("the system does not tell a process's memory")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// How many files and sockets it has open.
    ///
    /// # Errors
    /// When the process is gone or the system does not tell.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// A moment between two looks at a condition outside this process.
#[expect(clippy::disallowed_methods, reason = "the pause of a loop that polls another process")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Finds a program of Lull beside the running executable, or one folder up as for tests.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name).with_extension(env::consts::EXE_EXTENSION))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not beside {}; run `cargo build` first", own.display()))
}
