//! The program itself: starts, says so, answers beside its own subcommands, and ends when told.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use lull_shared::{
    client::{Client, Trust},
    credentials::{JoinCode, Role},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{eventually, pin, raw_client};

/// The program, killed when dropped.
struct Program {
    child: Child,
    ready: Value,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lull-coordinator"));
    command.arg("--data-dir").arg(data).stdin(Stdio::null());
    command
}

async fn start(data: &TempDir) -> Program {
    let ready = data.path().join("ready.json");
    let child = command(data.path())
        .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--ready-file"])
        .arg(&ready)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut program = Program { child, ready: Value::Null };
    program.ready = eventually("it says that it is ready", async || {
        serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()
    })
    .await;
    program
}

fn run(data: &TempDir, arguments: &[&str]) -> Output {
    command(data.path()).args(arguments).output().unwrap()
}

fn line(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "the secret stands alone: {text}");
    text.trim().to_owned()
}

#[cfg(unix)]
#[tokio::test]
async fn the_program_starts_answers_and_ends_when_told() {
    let data = tempfile::tempdir().unwrap();
    let mut program = start(&data).await;
    assert_eq!(program.ready["pid"], program.child.id());
    for field in ["url", "httpUrl"] {
        let url = format!("{}/healthz", program.ready[field].as_str().unwrap());
        assert_eq!(raw_client().get(url).send().await.unwrap().status(), 200, "{field}");
    }

    let pid = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = eventually("it ends", async || program.child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn the_subcommands_work_before_and_beside_the_server() {
    let data = tempfile::tempdir().unwrap();
    let before = line(&run(&data, &["token", "--role", "viewer"]));
    let program = start(&data).await;
    let beside = line(&run(&data, &["token", "--role", "admin", "--name", "ann", "--ttl", "1h"]));
    let url = program.ready["url"].as_str().unwrap().trim_start_matches("https://");
    let client = Client::new(&[url], Trust::SpkiPin(pin(data.path()))).unwrap();
    let who = client.with_token(before.into()).whoami().await.unwrap();
    assert_eq!((who.name.as_str(), who.role), ("viewer", Role::Viewer));
    let who = client.with_token(beside.into()).whoami().await.unwrap();
    assert_eq!((who.name.as_str(), who.role), ("ann", Role::Admin));
    assert!(who.expires_at.is_some());

    let code: JoinCode = line(&run(&data, &["join-code", "--uses", "3"])).parse().unwrap();
    assert_eq!(code.addresses, [url], "it names where the server really answers");
    assert_eq!(code.pin, pin(data.path()));
    let named = ["join-code", "--name", "pool.example:443"];
    let code: JoinCode = line(&run(&data, &named)).parse().unwrap();
    assert_eq!(code.addresses, ["pool.example:443"]);
}

#[tokio::test]
async fn c1_a_second_server_on_one_data_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let _first = start(&data).await;
    let second = run(&data, &["--listen", "127.0.0.1:0", "--log", "text"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another coordinator is running"), "{said}");
    assert!(said.contains(data.path().to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn c2_a_database_that_cannot_be_served_is_refused_and_left_alone() {
    type Spoil = fn(&Path);
    let spoilt: [(&str, Spoil); 4] = [
        ("start the newer version", |path| {
            let later = "insert into refinery_schema_history (version, name, applied_on, checksum)
                         values (9999, 'later', '', '1')";
            rusqlite::Connection::open(path).unwrap().execute(later, []).map(drop).unwrap();
        }),
        ("damaged or not one of Lull", |path| {
            std::fs::write(path, "a letter, not a database\n".repeat(1000)).unwrap();
        }),
        ("damaged or not one of Lull", |path| {
            // The page where the list of tables begins.
            let mut bytes = std::fs::read(path).unwrap();
            bytes[100..4096].fill(0xff);
            std::fs::write(path, bytes).unwrap();
        }),
        ("damaged or not one of Lull", |path| {
            std::fs::remove_file(path).unwrap();
            let other = rusqlite::Connection::open(path).unwrap();
            other.execute_batch("create table songs (title text)").unwrap();
        }),
    ];
    for (words, spoil) in spoilt {
        let data = tempfile::tempdir().unwrap();
        line(&run(&data, &["token", "--role", "viewer"]));
        let path = data.path().join("lull.db");
        // All of it in one file: what the log beside it holds would mend the damage.
        let whole = "pragma journal_mode = delete";
        let own = rusqlite::Connection::open(&path).unwrap();
        own.query_row(whole, [], |_| Ok(())).unwrap();
        drop(own);
        spoil(&path);
        let before = std::fs::read(&path).unwrap();

        let log = data.path().join("log");
        let child = command(data.path())
            .args(["--listen", "127.0.0.1:0", "--log", "text"])
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut program = Program { child, ready: Value::Null };
        let ended = eventually("it refuses", async || program.child.try_wait().unwrap()).await;

        assert_eq!(ended.code(), Some(1));
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.contains(words) && said.contains("lull.db"), "{said}");
        assert!(std::fs::read(&path).unwrap() == before, "nothing was changed: {words}");
    }
}

#[test]
fn plain_http_for_the_network_is_refused_with_a_reason() {
    let data = tempfile::tempdir().unwrap();
    let refused = run(&data, &["--http-listen", "0.0.0.0:0", "--log", "text"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("loopback"), "{said}");
}

#[test]
fn help_shows_how_to_begin() {
    let data = tempfile::tempdir().unwrap();
    let help = String::from_utf8(run(&data, &["--help"]).stdout).unwrap();
    for needed in ["Examples:", "token --role admin", "join-code", "--http-listen", "LULL_LISTEN"] {
        assert!(help.contains(needed), "{needed}");
    }
}
