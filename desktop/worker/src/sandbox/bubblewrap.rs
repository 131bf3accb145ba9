//! Linux: jobs in bubblewrap, with namespaces of their own and a root that holds the system's programs and the job's
//! folder, nothing else.
//!
//! The whole root is not bound in, not even read-only: a socket on a read-only mount still answers, so the owner's
//! session bus, key agent and the like would be reachable.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use lull_shared::workers::SandboxLevel;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, Command},
    time::timeout,
};

use super::{
    Exit, Launch, Sandbox, SandboxError, SandboxProcess, Started,
    cgroup::{Group, Groups},
    driver::{self, Plan, Reports},
    etc, probe,
    said::{self, Said},
    spawner, tree,
};

/// Where distributions put it. The search path is not asked: whoever can write to it could stand in for the sandbox.
const PLACES: [&str; 3] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];
/// Parts of the root that are folders on some systems and links into `/usr` on others.
const ROOT_PARTS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Room in `/tmp`, which takes memory.
const TMP_BYTES: &str = "536870912";
/// Room in `/dev/shm`, which takes memory.
const SHM_BYTES: &str = "268435456";
/// Starts jobs in bubblewrap.
#[derive(Debug)]
pub(super) struct Bubblewrap {
    program: PathBuf,
    /// What every job gets.
    arguments: Vec<OsString>,
    copies: etc::Copies,
    groups: Option<Arc<Groups>>,
    detail: String,
}

impl Bubblewrap {
    /// Finds bubblewrap and tests what it keeps away from a job here.
    pub(super) async fn find() -> Result<Self, SandboxError> {
        let missing = || start_error("bubblewrap is not installed", None);
        let program =
            PLACES.iter().map(Path::new).find(|path| path.exists()).ok_or_else(missing)?;
        let mut help = Command::new(program);
        let help = help.arg("--help").stdin(Stdio::null()).output().await;
        let help = help.map_err(|error| start_error("bubblewrap does not run", Some(error)))?;
        let no_nesting = String::from_utf8_lossy(&help.stdout).contains("--disable-userns");
        let mut sandbox = Self {
            program: program.to_owned(),
            arguments: common_arguments(no_nesting),
            copies: etc::Copies::default(),
            groups: Groups::find().map(Arc::new),
            detail: String::new(),
        };
        let escapes = probe::escapes(&sandbox).await?;
        if !escapes.is_empty() {
            let detail = format!("inside bubblewrap a job still reached {}", escapes.join(", "));
            return Err(start_error(&detail, None));
        }
        sandbox.detail =
            "contained by bubblewrap: own processes, files and network, none of the owner's"
                .to_owned();
        Ok(sandbox)
    }

    /// The job's own arguments go by a file that only bubblewrap sees: a command line is there for everybody to read,
    /// and the values of the job's environment are not for everybody.
    fn command(&self, plan: &Plan, files: &Files) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .current_dir("/")
            .arg("--args")
            .arg(files.arguments.as_raw_fd().to_string())
            .arg("--")
            .arg(&plan.program)
            .args(&plan.arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let inherited = files.inherited();
        // SAFETY: between fork and exec the closure makes system calls only, on descriptors that the parent keeps
        // open until the child has started; it allocates nothing and takes no lock.
        #[expect(unsafe_code, reason = "there is no safe way to act in the child before it runs")]
        unsafe {
            command.pre_exec(move || in_child(&inherited));
        }
        command
    }

    async fn launch(
        &self,
        launch: &Launch,
        plan: &Plan,
        copy: Option<&etc::Copy>,
    ) -> io::Result<(Child, Reports)> {
        let (writer, reports) = Reports::new()?;
        let files = Files::new(&self.arguments, copy, launch, &writer)?;
        let mut command = self.command(plan, &files);
        match plan.only_line {
            Some(_) => command.stdin(Stdio::null()),
            None => command.stdin(driver::stdin(writer)),
        };
        let child = spawner::spawn(command).await?;
        drop(files);
        Ok((child, reports))
    }
}

#[async_trait]
impl Sandbox for Bubblewrap {
    fn level(&self) -> SandboxLevel {
        SandboxLevel::L2
    }

    fn detail(&self) -> &str {
        &self.detail
    }

    async fn start(&self, launch: &Launch) -> Result<Started, SandboxError> {
        let plan = Plan::new(launch)?;
        let copy = self.copies.newest().await;
        let (mut child, mut reports) = self
            .launch(launch, &plan, copy.as_deref())
            .await
            .map_err(|error| start_error("bubblewrap does not run", Some(error)))?;
        let pipes = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = pipes.ok_or_else(|| start_error("it has no pipes", None))?;
        // From here on dropping the process kills the tree.
        let begun = match plan.only_line {
            Some(_) => reports.named().await,
            None => reports.begun().await,
        };
        let init = reports.child_pid.and_then(|pid| open_pidfd(pid).ok());
        let said = Said::default();
        let process = Contained {
            child,
            reports,
            init,
            groups: self.groups.clone(),
            group: None,
            _etc: copy,
            only_line: plan.only_line,
            said: said.clone(),
            exit: None,
        };
        if !begun {
            let said = said::all(stderr).await;
            return Err(start_error(
                if said.is_empty() { "it ended at once" } else { &said },
                None,
            ));
        }
        Ok(Started {
            stdout: Box::new(stdout),
            stderr: said.read(stderr),
            process: Box::new(process),
        })
    }
}

/// One job in bubblewrap.
struct Contained {
    child: Child,
    reports: Reports,
    /// The first process of the job's own process namespace: none of the job's processes outlives it.
    init: Option<AsyncFd<OwnedFd>>,
    groups: Option<Arc<Groups>>,
    /// Made when the job is suspended for the first time: joining a group takes some 15 ms, which a job that is never
    /// suspended need not pay.
    group: Option<Group>,
    /// What it sees as `/etc`.
    _etc: Option<Arc<etc::Copy>>,
    only_line: Option<u32>,
    /// The beginning of standard error, where bubblewrap says why it could not run the program.
    said: Said,
    exit: Option<Exit>,
}

impl Contained {
    /// Ends whatever is left, and returns when that has happened.
    async fn end_all(&mut self) -> io::Result<()> {
        const WAIT_MAX: Duration = Duration::from_secs(10);

        self.kill_now();
        let ended = async {
            self.child.wait().await?;
            if let Some(init) = &self.init {
                init.ready(Interest::READABLE).await?.retain_ready();
            }
            match &self.group {
                Some(group) => group.kill().await,
                None => Ok(()),
            }
        };
        timeout(WAIT_MAX, ended).await?
    }

    fn kill_now(&mut self) {
        if let Some(group) = &self.group {
            let _ = group.kill_now();
        }
        if let Some(init) = &self.init {
            let _ = pidfd_send_signal(init.get_ref(), Signal::KILL);
        }
        let _ = self.child.start_kill();
    }

    fn root(&self) -> i32 {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default()
    }
}

#[async_trait]
impl SandboxProcess for Contained {
    async fn wait(&mut self) -> Result<Exit, SandboxError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let error = |source| SandboxError::Handle { act: "wait for", source };
        let status = self.reports.until(self.child.wait()).await.map_err(error)?;
        self.end_all().await.map_err(error)?;
        self.reports.finish().await;
        if !self.reports.ran
            && let Some(error) = refusal(&self.said.text().await)
        {
            return Err(error);
        }
        let line = self.only_line.unwrap_or_else(|| self.reports.decisive_line());
        let exit = Exit { line, code: code_of(status) };
        self.exit = Some(exit);
        Ok(exit)
    }

    async fn suspend(&mut self) -> Result<(), SandboxError> {
        let root = self.root();
        if let (None, Some(groups)) = (&self.group, &self.groups) {
            // Where the system lets nobody join a group, signals have to do.
            self.group = groups.gather(|| tree::processes(root)).await.ok();
        }
        let frozen = match &self.group {
            Some(group) => group.freeze(true).await,
            None => tree::stop(|| tree::processes(root)).await,
        };
        frozen.map_err(|source| SandboxError::Handle { act: "suspend", source })
    }

    async fn resume(&mut self) -> Result<(), SandboxError> {
        let root = self.root();
        let thawed = match &self.group {
            Some(group) => group.freeze(false).await,
            None => {
                tree::go_on(|| tree::processes(root));
                Ok(())
            }
        };
        thawed.map_err(|source| SandboxError::Handle { act: "resume", source })
    }

    async fn kill(&mut self) -> Result<(), SandboxError> {
        self.end_all().await.map_err(|source| SandboxError::Handle { act: "kill", source })
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill_now();
        }
    }
}

/// Descriptors that bubblewrap reads before the job runs.
struct Files {
    arguments: OwnedFd,
    status: OwnedFd,
    /// The accounts of the job's own world, where they are not in a copy of `/etc`.
    accounts: Vec<OwnedFd>,
}

impl Files {
    fn new(
        common: &[OsString],
        copy: Option<&etc::Copy>,
        launch: &Launch,
        reports: &io::PipeWriter,
    ) -> io::Result<Self> {
        let status = OwnedFd::from(reports.try_clone()?);
        let status_fd = status.as_raw_fd().to_string();
        let folder = launch.folder.as_os_str();
        let (etc, accounts) = match copy {
            Some(copy) => {
                let bound = [OsStr::new("--ro-bind"), copy.path().as_os_str(), OsStr::new("/etc")];
                (bound.map(OsStr::to_owned).to_vec(), Vec::new())
            }
            None => etc_by_parts()?,
        };

        let mut arguments: Vec<&OsStr> = common.iter().map(OsString::as_os_str).collect();
        arguments.extend(etc.iter().map(OsString::as_os_str));
        arguments.extend(["--json-status-fd", &status_fd, "--bind"].map(OsStr::new));
        arguments.push(folder);
        arguments.extend(["/work", "--chdir", "/work", "--remount-ro", "/"].map(OsStr::new));
        for (name, value) in &launch.env {
            arguments.extend(["--setenv", name, value].map(OsStr::new));
        }
        let mut text = Vec::new();
        for argument in arguments {
            text.extend_from_slice(argument.as_bytes());
            text.push(0);
        }
        Ok(Self { arguments: memory_file("arguments", &text)?, status, accounts })
    }

    fn inherited(&self) -> Vec<RawFd> {
        let all = [&self.arguments, &self.status].into_iter().chain(&self.accounts);
        all.map(AsRawFd::as_raw_fd).collect()
    }
}

/// `/etc` part by part, and the files of accounts in it.
fn etc_by_parts() -> io::Result<(Vec<OsString>, Vec<OwnedFd>)> {
    let mut arguments: Vec<OsString> = Vec::new();
    for part in etc::PARTS {
        let place = format!("/etc/{part}");
        arguments.extend(["--ro-bind-try", &place, &place].map(OsString::from));
    }
    let mut accounts = Vec::new();
    for (place, content) in [("/etc/passwd", etc::USERS), ("/etc/group", etc::GROUPS)] {
        let file = memory_file("accounts", content)?;
        let fd = file.as_raw_fd().to_string();
        arguments.extend(["--file", &fd, place].map(OsString::from));
        accounts.push(file);
    }
    Ok((arguments, accounts))
}

fn memory_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::io::Seek as _;

    let mut file = std::fs::File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

/// In the child, before bubblewrap runs: steps back behind everything else on the PC, and keeps the descriptors that
/// bubblewrap is told of. What the system does not grant of the first is done without.
fn in_child(inherited: &[RawFd]) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_IDLE: libc::c_int = 3 << 13;

    // SAFETY: plain system calls on this process and on descriptors and buffers that outlive them.
    #[expect(unsafe_code, reason = "these calls have no safe form that is allowed after a fork")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        let lowest = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const lowest);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
        let oom =
            libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if oom >= 0 {
            libc::write(oom, c"1000".as_ptr().cast(), 4);
            libc::close(oom);
        }
        for fd in inherited {
            if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// The arguments that are the same for every job.
pub(super) fn common_arguments(no_nesting: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |line: &str| arguments.extend(line.split(' ').map(OsString::from));
    add(
        "--unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-net --unshare-cgroup-try",
    );
    add("--die-with-parent --new-session --clearenv --cap-drop ALL");
    add("--uid 1000 --gid 1000 --hostname lull");
    if no_nesting {
        add("--disable-userns");
    }
    add("--ro-bind /usr /usr");
    for part in ROOT_PARTS {
        let path = Path::new("/").join(part);
        match (std::fs::read_link(&path), path.is_dir()) {
            (Ok(target), _) => add(&format!("--symlink {} /{part}", target.display())),
            (Err(_), true) => add(&format!("--ro-bind /{part} /{part}")),
            (Err(_), false) => {}
        }
    }
    add("--proc /proc --dev /dev");
    add(&format!("--size {SHM_BYTES} --perms 1777 --tmpfs /dev/shm --remount-ro /dev"));
    add(&format!("--size {TMP_BYTES} --perms 1777 --tmpfs /tmp"));
    add("--dir /run --dir /home --dir /var --symlink ../run /var/run --symlink ../tmp /var/tmp");
    add("--setenv PATH /usr/local/bin:/usr/bin:/bin --setenv HOME /work --setenv TMPDIR /tmp");
    add("--setenv LANG C.UTF-8 --setenv USER job --setenv LOGNAME job --setenv SHELL /bin/sh");
    arguments
}

fn open_pidfd(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    // SAFETY: the descriptor is owned by the returned value, which nobody takes it out of, so it stays open and the
    // same as long as it is registered.
    #[expect(unsafe_code, reason = "the runtime takes descriptors only on this promise")]
    let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(registered?)
}

/// What bubblewrap's own last words mean; none when the words are not its own.
fn refusal(said: &str) -> Option<SandboxError> {
    let own = said.lines().rfind(|line| line.starts_with("bwrap: "))?;
    Some(match own.strip_prefix("bwrap: execvp ") {
        Some(why) => SandboxError::Program { detail: format!("could not run {why}") },
        None => start_error(own, None),
    })
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn start_error(detail: &str, source: Option<io::Error>) -> SandboxError {
    SandboxError::Start { detail: detail.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::sandbox::Program;

    #[tokio::test]
    async fn without_control_groups_a_job_is_suspended_and_killed_all_the_same() {
        let mut sandbox = Bubblewrap::find().await.unwrap();
        sandbox.groups = None;
        let folder = tempfile::tempdir().unwrap();
        let ticks = folder.path().join("ticks");
        let size = || fs::metadata(&ticks).map_or(0, |metadata| metadata.len());
        let launch = Launch {
            folder: folder.path().to_owned(),
            program: Program::lines(
                "setsid sh -c 'while :; do echo x >> ticks; done' & while :; do :; done",
            ),
            env: BTreeMap::new(),
        };
        let mut started = sandbox.start(&launch).await.unwrap();
        grows(size).await;
        started.process.suspend().await.unwrap();
        let stopped_at = size();
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(size(), stopped_at);
        }
        started.process.resume().await.unwrap();
        grows(size).await;
        started.process.suspend().await.unwrap();
        started.process.kill().await.unwrap();
        let holders = tree::processes(i32::try_from(std::process::id()).unwrap());
        let bwrap = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("ticks"))
        };
        assert_eq!(holders.iter().filter(|pid| bwrap(pid)).count(), 0);
    }

    async fn grows(size: impl Fn() -> u64) {
        let from = size();
        let growing = async {
            while size() < from + 100 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), growing).await.expect("the job runs");
    }
}
