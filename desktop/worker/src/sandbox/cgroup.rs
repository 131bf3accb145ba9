//! A control group per job, where the system lets us make one: freezes and kills the whole tree at once.
//!
//! Only `cgroup.freeze` and `cgroup.kill` are used, which need no controllers and no rights beyond a group of our own.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

const PREFIX: &str = "lull-job-";

/// The group in which jobs' groups are made: the one this program is in.
#[derive(Debug)]
pub(super) struct Groups {
    parent: PathBuf,
    made: AtomicU64,
}

impl Groups {
    /// Finds the group, and ends what an earlier run of the program left there. `None` where groups cannot be made.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4))?
        })?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let groups = Self { parent: Path::new(mount).join(own), made: AtomicU64::new(0) };
        groups.end_leftovers();
        let trial = groups.make().ok()?;
        let usable =
            trial.path.join("cgroup.freeze").exists() && trial.path.join("cgroup.kill").exists();
        usable.then_some(groups)
    }

    /// Makes a group for one job and puts its processes in, until two looks in a row find nobody outside: what a
    /// process in the group starts is in it from the beginning.
    pub(super) async fn gather(&self, find: impl Fn() -> BTreeSet<i32>) -> io::Result<Group> {
        const PASSES_MAX: u32 = 1000;

        let mut group = self.make()?;
        let mut inside = BTreeSet::new();
        let mut quiet = 0;
        for _ in 0..PASSES_MAX {
            let outside: Vec<i32> =
                find().into_iter().filter(|pid| !inside.contains(pid)).collect();
            for pid in &outside {
                group.join(*pid)?;
            }
            quiet = if outside.is_empty() { quiet + 1 } else { 0 };
            if quiet == 2 {
                return Ok(group);
            }
            inside.extend(outside);
            tokio::task::yield_now().await;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Makes a group for one job.
    fn make(&self) -> io::Result<Group> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let processes = File::options().write(true).open(path.join("cgroup.procs"));
        match processes {
            Ok(processes) => Ok(Group { path, processes }),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    fn end_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.parent) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let owner = rest.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(owner).exists() {
                let _ = fs::write(entry.path().join("cgroup.kill"), "1");
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The group of one job. Removed when dropped, if no process is left in it.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    processes: File,
}

impl Group {
    fn join(&mut self, pid: i32) -> io::Result<()> {
        match self.processes.write_all(pid.to_string().as_bytes()) {
            // It is gone.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Freezes or thaws every process, and waits until that is done.
    pub(super) async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let flag = if frozen { "1" } else { "0" };
        self.write("cgroup.freeze", flag)?;
        self.event(&format!("frozen {flag}")).await
    }

    /// Kills every process, and waits until none is left.
    pub(super) async fn kill(&self) -> io::Result<()> {
        self.kill_now()?;
        self.event("populated 0").await
    }

    /// Kills every process without waiting.
    pub(super) fn kill_now(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        File::options().write(true).open(self.path.join(file))?.write_all(value.as_bytes())
    }

    fn events(&self) -> io::Result<String> {
        fs::read_to_string(self.path.join("cgroup.events"))
    }

    async fn event(&self, wanted: &str) -> io::Result<()> {
        const WAIT_MAX: Duration = Duration::from_secs(10);

        let deadline = Instant::now() + WAIT_MAX;
        while !self.events()?.contains(wanted) {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.kill_now();
        let _ = fs::remove_dir(&self.path);
    }
}
