//! The headless program as a process: what it says, when it ends, and with which exit code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use lull_shared::credentials::{JoinCode, SpkiPin};
use secrecy::ExposeSecret as _;

fn program(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lull-worker"));
    command.env_clear().arg("--data-dir").arg(data_dir).stdin(Stdio::null());
    command
}

fn ended(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output, said)
}

/// A code for a coordinator that nobody runs.
fn code_for_nobody() -> String {
    let code = JoinCode::generate(SpkiPin([7; 32]), vec!["127.0.0.1:1".to_owned()]);
    code.to_text().expose_secret().to_owned()
}

/// A running program that is ended with the test.
struct Running {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// Reads the log up to a line with this text; returns all of it.
    fn read_until(&mut self, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            let read = self.said.read_line(&mut all).unwrap();
            assert!(read > 0, "it ended without saying {text:?}:\n{all}");
        }
        all
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pc_without_a_pool_is_told_how_to_join_one() {
    let folder = tempfile::tempdir().unwrap();
    let (output, said) = ended(&mut program(folder.path()));
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("lull-coordinator join-code"), "{said}");
    assert!(said.contains("lull-worker --join CODE"), "{said}");
}

#[test]
fn a_damaged_code_ends_the_program_and_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let code = code_for_nobody().replace("127.0.0.1:1", "127.0.0.1");
    let (output, said) = ended(program(folder.path()).arg("--join").arg(&code));
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("not a complete join code"), "{said}");
    assert!(!said.contains(&code), "{said}");
}

#[test]
fn a_label_that_is_none_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (output, said) =
        ended(program(folder.path()).args(["--label", "gpu", "--label", "two words"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("\"two words\" is not a label"), "{said}");
    let (_, said) = ended(program(folder.path()).env("LULL_LABELS", "a,b/c"));
    assert!(said.contains("\"b/c\" is not a label"), "{said}");
}

#[test]
fn history_needs_neither_worker_nor_pool() {
    let folder = tempfile::tempdir().unwrap();
    let (output, said) = ended(program(folder.path()).arg("history"));
    assert!(output.status.success(), "{said}");
    assert_eq!(output.stdout, b"Nothing ran on this PC yet.\n");
    let (output, _) = ended(program(folder.path()).args(["history", "--json"]));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "attempts": [] }));
}

#[cfg(unix)]
#[test]
fn a_coordinator_that_is_away_is_waited_for_until_a_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let code = code_for_nobody();
    let mut command = program(folder.path());
    command.env("LULL_JOIN", &code).arg("--always").arg("--ready-file").arg(&ready);
    let mut running = Running::start(&mut command);
    let mut said = running.read_until("could not join yet");

    let (second, refused) = ended(program(folder.path()).arg("--always"));
    assert_eq!(second.status.code(), Some(1));
    assert!(refused.contains("another worker already runs"), "{refused}");

    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    running.said.read_to_string(&mut said).unwrap();
    assert!(running.child.wait().unwrap().success(), "{said}");
    assert!(!ready.exists());
    let secret = code.split(['.', '@']).nth(3).unwrap();
    assert!(!said.contains(secret), "the secret is in the log:\n{said}");
}
