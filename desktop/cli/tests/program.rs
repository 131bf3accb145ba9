//! The program itself, without a coordinator: exit codes, what goes to which stream, what `login` keeps.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    path::Path,
    process::{Command, Output},
};

/// Nothing listens there: the port is reserved.
const NOWHERE: &str = "https://127.0.0.1:1";

#[test]
fn exit_codes_tell_a_wrong_command_line_from_a_failure_and_from_a_job() {
    let home = tempfile::tempdir().unwrap();
    check(&lull(home.path(), &["--help"]), 0);
    check(&lull(home.path(), &["--version"]), 0);
    check(&lull(home.path(), &["frobnicate"]), 2);
    check(&lull(home.path(), &["run"]), 2);
    check(&lull(home.path(), &["run", "--dir", "a", "--zip", "b", "--", "true"]), 2);
    check(&lull(home.path(), &["jobs"]), 1);
    check(&lull(home.path(), &["run", "--", "true"]), 125);
    check(&lull(home.path(), &["logout"]), 0);
}

#[test]
fn without_a_login_the_way_in_is_told() {
    let home = tempfile::tempdir().unwrap();
    let said = lull(home.path(), &["jobs", "--json"]);
    assert_eq!(said.stdout, b"");
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.contains("run `lull login`"), "{text}");
    assert!(!text.contains('\x1b'), "colours where no terminal is: {text:?}");
}

#[test]
fn a_coordinator_that_is_away_is_told_with_what_to_do_and_without_the_token() {
    let home = tempfile::tempdir().unwrap();
    let said = command(home.path(), &["workers"])
        .env("LULL_URL", NOWHERE)
        .env("LULL_TOKEN", "lullt_very-secret")
        .output()
        .unwrap();
    check(&said, 1);
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.contains(NOWHERE) && text.contains("cannot be reached"), "{text}");
    assert!(text.contains("next: "), "{text}");
    assert!(!text.contains("very-secret"), "{text}");
}

#[test]
fn an_unquoted_command_is_refused_before_anything_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let said = command(home.path(), &["run", "--", "python3", "x.py"])
        .env("LULL_URL", NOWHERE)
        .env("LULL_TOKEN", "lullt_x")
        .output()
        .unwrap();
    check(&said, 125);
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.contains("'python3 x.py'"), "{text}");
}

#[test]
fn a_login_that_fails_stores_nothing() {
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "lullt_x").unwrap();
    let token = token.to_str().unwrap().to_owned();
    check(&lull(home.path(), &["login", "--url", NOWHERE, "--token-file", &token]), 1);
    assert!(!home.path().join("lull/login.json").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn logging_out_forgets_the_login() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("lull")).unwrap();
    let login = home.path().join("lull/login.json");
    std::fs::write(&login, format!(r#"{{"url":"{NOWHERE}","token":"lullt_x"}}"#)).unwrap();
    let said = lull(home.path(), &["logout", "--json"]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "{\"signedOut\":true}\n");
    assert!(!login.exists());
}

fn lull(home: &Path, args: &[&str]) -> Output {
    command(home, args).output().unwrap()
}

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lull"));
    command.args(args).env("XDG_CONFIG_HOME", home).env("HOME", home);
    for name in ["LULL_URL", "LULL_TOKEN", "LULL_CA"] {
        command.env_remove(name);
    }
    command
}

#[track_caller]
fn check(said: &Output, code: i32) {
    assert_eq!(said.status.code(), Some(code), "{said:?}");
}
