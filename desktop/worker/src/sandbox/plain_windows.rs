//! Windows: a job as a plain tree of processes in a Job Object, reported as not contained.
//!
//! Each line's shell is made suspended, put into the Job Object, and only then runs, so nothing it starts can be
//! outside. The Job Object dies with its last handle, which is ours: a worker that crashes leaves nothing behind.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, PipeWriter},
    mem,
    os::windows::{
        io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
        process::CommandExt as _,
    },
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use lull_shared::{
    jobs::{OnError, Shell},
    workers::SandboxLevel,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use windows_sys::Win32::{
    Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE},
    System::{
        Diagnostics::ToolHelp::{
            CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
        },
        JobObjects::{
            AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
            JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
            JOB_OBJECT_LIMIT_PRIORITY_CLASS, JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
            JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectBasicAccountingInformation,
            JobObjectExtendedLimitInformation, QueryInformationJobObject, SetInformationJobObject,
            TerminateJobObject,
        },
        Threading::{
            CREATE_NO_WINDOW, CREATE_SUSPENDED, IDLE_PRIORITY_CLASS, OpenThread, ResumeThread,
            THREAD_SUSPEND_RESUME,
        },
    },
};

use super::{Exit, Launch, Pipe, Program, Sandbox, SandboxError, SandboxProcess, Started};

/// Most processes of one job at a time.
const PROCESSES_MAX: u32 = 256;
/// Exit code of processes that are killed.
const KILLED: u32 = 137;

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
        let error = |source| SandboxError::Start {
            detail: "the command prompt does not run".to_owned(),
            source: Some(source),
        };
        check(&launch.program)?;
        let (stdout, stdout_writer) = io::pipe().map_err(error)?;
        let (stderr, stderr_writer) = io::pipe().map_err(error)?;
        let mut process = Lines {
            job: Arc::new(JobObject::new().map_err(error)?),
            launch: launch.clone(),
            next: 0,
            child: None,
            writers: Some((stdout_writer, stderr_writer)),
            exit: Exit { line: 0, code: 0 },
            failed: None,
            ended: false,
        };
        process.start_next().map_err(|source| match &launch.program {
            Program::Argv(argv) if is_the_program_s(&source) => {
                SandboxError::Program { detail: format!("could not run {}: {source}", argv[0]) }
            }
            Program::Argv(_) | Program::Lines { .. } => error(source),
        })?;
        Ok(Started {
            stdout: read_end(stdout.into()),
            stderr: read_end(stderr.into()),
            process: Box::new(process),
        })
    }
}

/// Refuses what cannot run on this system, before anything is started.
fn check(program: &Program) -> Result<(), SandboxError> {
    let refusal = |detail: &str| Err(SandboxError::Program { detail: detail.to_owned() });
    match program {
        Program::Argv(argv) if argv.is_empty() => refusal("there is no program to run"),
        Program::Lines { shell: Some(Shell::Sh), .. } => refusal("this system has no sh"),
        Program::Argv(_) | Program::Lines { .. } => Ok(()),
    }
}

/// Whether a start failed because of what was to be started, not because of this PC. Arguments that a batch file
/// would misread are among it: the standard library refuses them.
fn is_the_program_s(error: &io::Error) -> bool {
    const ERROR_BAD_EXE_FORMAT: i32 = 193;
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
    ) || error.raw_os_error() == Some(ERROR_BAD_EXE_FORMAT)
}

/// What runs one line, or the program itself.
fn command_of(program: &Program, index: usize) -> std::process::Command {
    match program {
        Program::Argv(argv) => {
            let mut command = std::process::Command::new(&argv[0]);
            command.args(&argv[1..]);
            command
        }
        Program::Lines { lines, shell: Some(Shell::Powershell), .. } => {
            let mut command = std::process::Command::new("powershell.exe");
            command
                .args(["-NoLogo", "-NoProfile", "-NonInteractive", "-OutputFormat", "Text"])
                // Encoded, so that nothing in the line is read by anything but PowerShell.
                .args(["-EncodedCommand", &encoded(&lines[index])]);
            command
        }
        Program::Lines { lines, .. } => {
            let mut command = std::process::Command::new("cmd.exe");
            // With /s everything between the first and the last quote is the line, whatever quotes it holds.
            command.args(["/d", "/s", "/c"]).raw_arg(format!("\"{}\"", lines[index]));
            command
        }
    }
}

/// A line as PowerShell takes it: base64 of UTF-16.
fn encoded(line: &str) -> String {
    let bytes: Vec<u8> = line.encode_utf16().flat_map(u16::to_le_bytes).collect();
    STANDARD.encode(bytes)
}

/// Whether a variable of this program is one that programs of the system cannot do without. All others stay here.
fn is_passed_on(name: &OsStr) -> bool {
    const NEEDED: [&str; 15] = [
        "ALLUSERSPROFILE",
        "COMPUTERNAME",
        "COMSPEC",
        "CommonProgramFiles",
        "NUMBER_OF_PROCESSORS",
        "OS",
        "PATH",
        "PATHEXT",
        "PROCESSOR_ARCHITECTURE",
        "ProgramData",
        "ProgramFiles",
        "ProgramFiles(x86)",
        "SystemDrive",
        "SystemRoot",
        "windir",
    ];
    NEEDED.iter().any(|needed| name.eq_ignore_ascii_case(needed))
}

/// Pipes of this kind can only be read by waiting, which the file type does on a thread of its own.
fn read_end(pipe: OwnedHandle) -> Pipe {
    Box::new(tokio::fs::File::from_std(File::from(pipe)))
}

/// The lines of one job or its program, one process after the other in the same Job Object.
struct Lines {
    job: Arc<JobObject>,
    launch: Launch,
    next: usize,
    child: Option<Child>,
    /// The writing ends for the shells to come; closed after the last one, so that the readers see the end.
    writers: Option<(PipeWriter, PipeWriter)>,
    exit: Exit,
    /// The last line that failed, where lines go on.
    failed: Option<Exit>,
    ended: bool,
}

impl Lines {
    /// The next line that is not blank, or the program.
    fn next_index(&self) -> Option<usize> {
        match &self.launch.program {
            Program::Argv(_) => (self.next == 0).then_some(0),
            Program::Lines { lines, .. } => {
                (self.next..lines.len()).find(|index| !lines[*index].trim().is_empty())
            }
        }
    }

    /// Starts what comes next. Without anything, there is no child.
    fn start_next(&mut self) -> io::Result<()> {
        self.child = None;
        let Some(index) = self.next_index() else { return Ok(()) };
        let Some((stdout, stderr)) = &self.writers else { return Ok(()) };
        let mut command = command_of(&self.launch.program, index);
        command
            .current_dir(&self.launch.folder)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)))
            .env("USERPROFILE", &self.launch.folder)
            .env("TEMP", &self.launch.folder)
            .env("TMP", &self.launch.folder)
            .envs(&self.launch.env)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .creation_flags(CREATE_SUSPENDED | CREATE_NO_WINDOW | IDLE_PRIORITY_CLASS);
        let mut child = Command::from(command).kill_on_drop(true).spawn()?;
        if let Err(error) = self.job.take_and_resume(&child) {
            let _ = child.start_kill();
            return Err(error);
        }
        self.next = index + 1;
        self.exit.line = u32::try_from(index + 1).unwrap_or(u32::MAX);
        self.child = Some(child);
        Ok(())
    }

    const fn goes_on(&self) -> bool {
        matches!(&self.launch.program, Program::Lines { on_error: OnError::Continue, .. })
    }

    async fn end_all(&mut self) -> io::Result<()> {
        const WAIT_MAX: Duration = Duration::from_secs(10);

        self.ended = true;
        self.writers = None;
        self.job.terminate()?;
        let deadline = Instant::now() + WAIT_MAX;
        while self.job.active_processes()? > 0 {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl SandboxProcess for Lines {
    async fn wait(&mut self) -> Result<Exit, SandboxError> {
        let error = |source| SandboxError::Handle { act: "wait for", source };
        while !self.ended {
            if let Some(child) = &mut self.child {
                let status = child.wait().await.map_err(error)?;
                self.exit.code = status.code().unwrap_or(1);
                if self.exit.code != 0 && self.goes_on() {
                    self.failed = Some(self.exit);
                }
                if self.exit.code == 0 || self.goes_on() {
                    self.start_next().map_err(error)?;
                    if self.child.is_some() {
                        continue;
                    }
                }
            }
            self.end_all().await.map_err(error)?;
        }
        Ok(self.failed.unwrap_or(self.exit))
    }

    async fn suspend(&mut self) -> Result<(), SandboxError> {
        self.job.freeze(true).map_err(|source| SandboxError::Handle { act: "suspend", source })
    }

    async fn resume(&mut self) -> Result<(), SandboxError> {
        self.job.freeze(false).map_err(|source| SandboxError::Handle { act: "resume", source })
    }

    async fn kill(&mut self) -> Result<(), SandboxError> {
        self.end_all().await.map_err(|source| SandboxError::Handle { act: "kill", source })
    }
}

/// A Job Object that kills what is in it when its handle is closed.
#[derive(Debug)]
struct JobObject(OwnedHandle);

/// Argument of the freezing of a whole Job Object. The system has it since Windows 8; no header names it.
#[repr(C)]
#[derive(Default)]
struct FreezeInformation {
    flags: u32,
    freeze: u8,
    swap: u8,
    reserved: u16,
    wake_filter: [u32; 2],
}

impl JobObject {
    fn new() -> io::Result<Self> {
        // SAFETY: no attributes and no name; the result is checked and owned by nobody else.
        #[expect(unsafe_code, reason = "a system call")]
        let job = unsafe {
            let handle = CreateJobObjectW(std::ptr::null(), std::ptr::null());
            if handle.is_null() {
                return Err(io::Error::last_os_error());
            }
            Self(OwnedHandle::from_raw_handle(handle))
        };
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
            | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION
            | JOB_OBJECT_LIMIT_ACTIVE_PROCESS
            | JOB_OBJECT_LIMIT_PRIORITY_CLASS;
        limits.BasicLimitInformation.ActiveProcessLimit = PROCESSES_MAX;
        limits.BasicLimitInformation.PriorityClass = IDLE_PRIORITY_CLASS;
        job.set(JobObjectExtendedLimitInformation, &limits)?;
        Ok(job)
    }

    fn handle(&self) -> HANDLE {
        self.0.as_raw_handle()
    }

    /// Puts a suspended process in and lets it run.
    fn take_and_resume(&self, child: &Child) -> io::Result<()> {
        let process = child.raw_handle().ok_or(io::ErrorKind::NotFound)?;
        // SAFETY: both handles are open as long as `self` and `child` are borrowed.
        #[expect(unsafe_code, reason = "a system call")]
        let assigned = unsafe { AssignProcessToJobObject(self.handle(), process) };
        if assigned == 0 {
            return Err(io::Error::last_os_error());
        }
        resume(child.id().ok_or(io::ErrorKind::NotFound)?)
    }

    fn terminate(&self) -> io::Result<()> {
        // SAFETY: the handle is open as long as `self` is borrowed.
        #[expect(unsafe_code, reason = "a system call")]
        let terminated = unsafe { TerminateJobObject(self.handle(), KILLED) };
        if terminated == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn freeze(&self, frozen: bool) -> io::Result<()> {
        const FREEZE_INFORMATION: i32 = 18;
        const FREEZE_OPERATION: u32 = 1;

        let information = FreezeInformation {
            flags: FREEZE_OPERATION,
            freeze: u8::from(frozen),
            ..FreezeInformation::default()
        };
        self.set(FREEZE_INFORMATION, &information)
    }

    fn active_processes(&self) -> io::Result<u32> {
        let mut accounting = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        // SAFETY: the structure is the one that this class of information fills, and its size is told.
        #[expect(unsafe_code, reason = "a system call")]
        let queried = unsafe {
            QueryInformationJobObject(
                self.handle(),
                JobObjectBasicAccountingInformation,
                (&raw mut accounting).cast(),
                size_of(&accounting),
                std::ptr::null_mut(),
            )
        };
        if queried == 0 { Err(io::Error::last_os_error()) } else { Ok(accounting.ActiveProcesses) }
    }

    fn set<T>(&self, class: i32, information: &T) -> io::Result<()> {
        // SAFETY: each caller passes the structure that belongs to the class, and its size is told.
        #[expect(unsafe_code, reason = "a system call")]
        let set = unsafe {
            let information: *const T = information;
            let size = u32::try_from(mem::size_of::<T>()).unwrap_or_default();
            SetInformationJobObject(self.handle(), class, information.cast(), size)
        };
        if set == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Resumes the threads of a process that was made suspended: it has one.
fn resume(process: u32) -> io::Result<()> {
    let mut resumed = false;
    // SAFETY: the snapshot and each thread's handle are checked before use and closed after it; the entry carries its
    // size, as the calls require.
    #[expect(unsafe_code, reason = "the standard library does not give the thread's handle")]
    unsafe {
        let snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
        if snapshot == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        let mut entry = THREADENTRY32::default();
        entry.dwSize = size_of(&entry);
        let mut more = Thread32First(snapshot, &raw mut entry);
        while more != 0 {
            if entry.th32OwnerProcessID == process {
                let thread = OpenThread(THREAD_SUSPEND_RESUME, 0, entry.th32ThreadID);
                if !thread.is_null() {
                    resumed |= ResumeThread(thread) != u32::MAX;
                    CloseHandle(thread);
                }
            }
            more = Thread32Next(snapshot, &raw mut entry);
        }
        CloseHandle(snapshot);
    }
    if resumed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn size_of<T>(_: &T) -> u32 {
    u32::try_from(mem::size_of::<T>()).unwrap_or_default()
}
