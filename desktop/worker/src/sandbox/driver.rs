//! What is started for a job: the program itself, a shell for a single line, or a small script that runs several
//! lines; and the pipe on which the script says how far it is.
//!
//! One start of the sandbox serves all lines, which keeps a job of many lines cheap and lets a line use what an
//! earlier one left running. The script reports each line's number before it runs it; its own exit code is that of the
//! line that decided.

use std::{
    ffi::OsString,
    io::{self, PipeWriter},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::unix::pipe,
    time::timeout,
};

use lull_shared::jobs::{OnError, Shell};

use super::{Launch, Program, SandboxError};

/// The shell that runs the script and each line.
const SHELL: &str = "/bin/sh";

/// Takes pairs of a line's number and the line. Its standard input is the pipe to report on; the lines get an empty
/// one and do not see the pipe.
const SCRIPT: &str = r#"exec 3>&0 </dev/null
while [ $# -gt 1 ]; do
echo "line $1" >&3
/bin/sh -c -- "$2" 3>&-
lull_code=$?
[ $lull_code = 0 ] || exit $lull_code
shift 2
done"#;

/// The same for lines that go on after a failure: it reports each that failed, and ends with the code of the last.
const SCRIPT_GOING_ON: &str = r#"exec 3>&0 </dev/null
lull_failed=0
while [ $# -gt 1 ]; do
echo "line $1" >&3
/bin/sh -c -- "$2" 3>&-
lull_code=$?
[ $lull_code = 0 ] || { lull_failed=$lull_code; echo "failed $1" >&3; }
shift 2
done
exit $lull_failed"#;

/// What is started for a job.
pub(super) struct Plan {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    /// The only line's number; none when a script runs several and reports on its standard input.
    pub(super) only_line: Option<u32>,
}

impl Plan {
    /// Decides what to start. What no process can be given is refused here, before anything is started.
    pub(super) fn new(launch: &Launch) -> Result<Self, SandboxError> {
        check(launch)?;
        match &launch.program {
            Program::Argv(argv) => {
                let (program, arguments) =
                    argv.split_first().ok_or_else(|| refusal("there is no program to run"))?;
                Ok(Self {
                    program: program.into(),
                    arguments: arguments.iter().map(OsString::from).collect(),
                    only_line: Some(1),
                })
            }
            Program::Lines { lines, shell, on_error } => match shell {
                None | Some(Shell::Sh) => Ok(Self::of_lines(lines, *on_error)),
                Some(Shell::Cmd) => Err(refusal("this system has no cmd")),
                Some(Shell::Powershell) => Err(refusal("this system has no powershell")),
            },
        }
    }

    fn of_lines(lines: &[String], on_error: OnError) -> Self {
        let lines: Vec<(u32, &String)> =
            (1..).zip(lines).filter(|(_, line)| !line.trim().is_empty()).collect();
        if let [(number, line)] = lines[..] {
            let arguments = vec!["-c".into(), "--".into(), line.into()];
            return Self { program: SHELL.into(), arguments, only_line: Some(number) };
        }
        let script = match on_error {
            OnError::Stop => SCRIPT,
            OnError::Continue => SCRIPT_GOING_ON,
        };
        let mut arguments: Vec<OsString> = vec!["-c".into(), script.into(), "lull".into()];
        for (number, line) in lines {
            arguments.extend([number.to_string().into(), line.into()]);
        }
        Self { program: SHELL.into(), arguments, only_line: None }
    }
}

/// What arrives on the report pipe.
pub(super) struct Reports {
    pipe: BufReader<pipe::Receiver>,
    /// A report of which only a part has come.
    partial: Vec<u8>,
    /// Nothing more comes.
    closed: bool,
    /// Number of the line that was begun last; 0 before the first.
    line: u32,
    /// Number of the line that failed last.
    failed: Option<u32>,
    /// The process that the sandbox's own report named first.
    pub(super) child_pid: Option<i32>,
    /// Whether the sandbox's own report says that what it was to run did run, and ended.
    pub(super) ran: bool,
}

impl Reports {
    /// Makes the pipe: the script's standard input, and this side.
    pub(super) fn new() -> io::Result<(PipeWriter, Self)> {
        let (reader, writer) = io::pipe()?;
        let pipe = BufReader::new(pipe::Receiver::from_owned_fd(reader.into())?);
        let reports = Self {
            pipe,
            partial: Vec::new(),
            closed: false,
            line: 0,
            failed: None,
            child_pid: None,
            ran: false,
        };
        Ok((writer, reports))
    }

    /// Waits until the first line has begun; false when the pipe closed before.
    pub(super) async fn begun(&mut self) -> bool {
        while self.line == 0 && !self.closed {
            self.read().await;
        }
        self.line > 0
    }

    /// Waits until the sandbox has named its first process; false when the pipe closed before.
    pub(super) async fn named(&mut self) -> bool {
        while self.child_pid.is_none() && !self.closed {
            self.read().await;
        }
        self.child_pid.is_some()
    }

    /// The line that decided: the last that failed where lines go on, else the last that began.
    pub(super) fn decisive_line(&self) -> u32 {
        self.failed.unwrap_or(self.line)
    }

    /// Takes in what is reported until the process has ended: a pipe that nobody empties would hold the script.
    pub(super) async fn until<T>(&mut self, ended: impl Future<Output = T>) -> T {
        let mut ended = std::pin::pin!(ended);
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => return ended,
                () = self.read(), if !self.closed => {}
            }
        }
    }

    /// Reads what is left to know which line ran last. For after the script has ended, so what is left is there; a
    /// process that holds the pipe open is not waited for.
    pub(super) async fn finish(&mut self) {
        const WAIT_MAX: Duration = Duration::from_millis(200);

        let all = async {
            while !self.closed {
                self.read().await;
            }
        };
        let _ = timeout(WAIT_MAX, all).await;
    }

    /// Takes in one report. May be dropped and begun again.
    async fn read(&mut self) {
        const REPORT_BYTES_MAX: u64 = 4096;

        let mut limited = (&mut self.pipe).take(REPORT_BYTES_MAX);
        if !matches!(limited.read_until(b'\n', &mut self.partial).await, Ok(1..)) {
            self.closed = true;
            return;
        }
        let report = std::mem::take(&mut self.partial);
        let report = String::from_utf8_lossy(&report);
        let number = |word| report.strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
        if let Some(line) = number("line ") {
            self.line = line;
        } else if let Some(line) = number("failed ") {
            self.failed = Some(line);
        } else if report.contains("\"exit-code\":") {
            self.ran = true;
        } else if let Some((_, pid)) = report.split_once("\"child-pid\":")
            && self.child_pid.is_none()
        {
            let digits: String =
                pid.trim_start().chars().take_while(char::is_ascii_digit).collect();
            self.child_pid = digits.parse().ok();
        }
    }
}

/// The script's standard input.
pub(super) fn stdin(writer: PipeWriter) -> Stdio {
    std::os::fd::OwnedFd::from(writer).into()
}

fn refusal(detail: &str) -> SandboxError {
    SandboxError::Program { detail: detail.to_owned() }
}

fn check(launch: &Launch) -> Result<(), SandboxError> {
    let texts = match &launch.program {
        Program::Lines { lines, .. } => lines,
        Program::Argv(argv) => argv,
    };
    let has_nul = texts.iter().any(|text| text.contains('\0'))
        || launch.env.iter().any(|(name, value)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        });
    if has_nul {
        return Err(refusal(
            "a line or an environment variable has a character that none may have",
        ));
    }
    Ok(())
}
