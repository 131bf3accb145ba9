//! The small shell script that runs a job's lines inside the sandbox, and the pipe on which it says how far it is.
//!
//! One start of the sandbox serves all lines, which keeps a job of many lines cheap and lets a line use what an
//! earlier one left running. The script reports each line's number before it runs it; its own exit code is that of the
//! last line.

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

use super::{Launch, SandboxError};

/// The shell that runs the script and each line.
pub(super) const SHELL: &str = "/bin/sh";

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

/// Arguments of [`SHELL`] that run the lines.
pub(super) fn arguments(launch: &Launch) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-c".into(), SCRIPT.into(), "lull".into()];
    for (index, line) in launch.lines.iter().enumerate() {
        if !line.trim().is_empty() {
            arguments.push((index + 1).to_string().into());
            arguments.push(line.into());
        }
    }
    arguments
}

/// What arrives on the report pipe.
pub(super) struct Reports {
    lines: BufReader<pipe::Receiver>,
    /// Number of the line that was begun last; 0 before the first.
    pub(super) line: u32,
    /// The process that the sandbox's own report named first.
    pub(super) child_pid: Option<i32>,
}

impl Reports {
    /// Makes the pipe: the script's standard input, and this side.
    pub(super) fn new() -> io::Result<(PipeWriter, Self)> {
        let (reader, writer) = io::pipe()?;
        let lines = BufReader::new(pipe::Receiver::from_owned_fd(reader.into())?);
        Ok((writer, Self { lines, line: 0, child_pid: None }))
    }

    /// Waits until the first line has begun; false when the pipe closed before.
    pub(super) async fn begun(&mut self) -> bool {
        while self.line == 0 {
            if !self.read().await {
                return false;
            }
        }
        true
    }

    /// Reads what is left to know which line ran last. For after the script has ended, so what is left is there; a
    /// process that holds the pipe open is not waited for.
    pub(super) async fn finish(&mut self) {
        const WAIT_MAX: Duration = Duration::from_millis(200);

        let _ = timeout(WAIT_MAX, async { while self.read().await {} }).await;
    }

    async fn read(&mut self) -> bool {
        const REPORT_BYTES_MAX: u64 = 4096;

        let mut report = Vec::new();
        let mut limited = (&mut self.lines).take(REPORT_BYTES_MAX);
        if !matches!(limited.read_until(b'\n', &mut report).await, Ok(1..)) {
            return false;
        }
        let report = String::from_utf8_lossy(&report);
        if let Some(line) = report.strip_prefix("line ").and_then(|line| line.trim().parse().ok()) {
            self.line = line;
        } else if let Some((_, pid)) = report.split_once("\"child-pid\":")
            && self.child_pid.is_none()
        {
            let digits: String =
                pid.trim_start().chars().take_while(char::is_ascii_digit).collect();
            self.child_pid = digits.parse().ok();
        }
        true
    }
}

/// The script's standard input.
pub(super) fn stdin(writer: PipeWriter) -> Stdio {
    std::os::fd::OwnedFd::from(writer).into()
}

/// Refuses what no process can be given, before anything is started.
pub(super) fn check(launch: &Launch) -> Result<(), SandboxError> {
    let has_nul = launch.lines.iter().any(|line| line.contains('\0'))
        || launch.env.iter().any(|(name, value)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        });
    if has_nul {
        return Err(SandboxError::Start {
            detail: "a line or an environment variable has a character that none may have".into(),
            source: None,
        });
    }
    Ok(())
}
