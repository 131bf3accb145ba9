//! `lull` against a real pool: arrays, waiting, holding, and the feed of events.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{fs, process::Stdio};

use lull_bench::{
    pool::Pool,
    process::{PATIENCE, program},
};
use lull_shared::credentials::Role;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

#[tokio::test]
async fn an_array_is_followed_to_its_outcome_and_its_files_come_home() {
    let mut pool = Pool::start(&[]).unwrap();
    pool.start_worker(&[]).unwrap();
    fs::write(pool.path("items"), "ada\n\ngrace\nalan\n").unwrap();

    let ran = lull(&pool, &["run", "--json", "--output", "said", "--items-from"])
        .arg(pool.path("items"))
        .arg("--into")
        .arg(pool.path("home"))
        .args(["--", "echo $LULL_INDEX $LULL_ITEM > said; [ $LULL_ITEM != alan ]"])
        .output()
        .await
        .unwrap();

    assert_eq!(ran.status.code(), Some(1), "one job of it fails: {ran:?}");
    let told: Vec<Value> = String::from_utf8_lossy(&ran.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = told.iter().rfind(|event| event["event"] == "array").unwrap();
    assert_eq!(last["array"]["completed"], 2, "{told:?}");
    assert_eq!(last["array"]["failed"], 1);
    assert_eq!(fs::read_to_string(pool.path("home/1/said")).unwrap(), "1 grace\n");

    let array = told[0]["job"]["jobId"].as_str().unwrap();
    let listed = json(&pool, &["jobs", "--json", "--array", array]).await;
    let indices: Vec<_> =
        listed["jobs"].as_array().unwrap().iter().map(|job| &job["index"]).collect();
    assert_eq!(indices, [0, 1, 2]);
    let third = json(&pool, &["status", "--json", &format!("{array}/2")]).await;
    assert_eq!(third["exitCode"], 1);
}

#[tokio::test]
async fn a_waiting_job_says_why_once_and_again_when_the_reason_changes() {
    let mut pool = Pool::start(&[]).unwrap();
    let (mut running, mut told) = start(&pool, &["run", "--json", "--hold", "--", "echo done"]);
    let submitted = event(&mut told, "submitted").await;
    let id = submitted["job"]["jobId"].as_str().unwrap();

    let held = event(&mut told, "waiting").await;
    assert_eq!(held["explanation"]["reason"], "held");
    assert!(lull(&pool, &["release", id]).status().await.unwrap().success());
    let alone = event(&mut told, "waiting").await;
    assert_eq!(alone["explanation"]["reason"], "noneFits", "said by the feed, without asking");

    pool.start_worker(&[]).unwrap();
    let ended = event(&mut told, "ended").await;
    assert_eq!(ended["job"]["status"], "completed");
    assert!(running.wait().await.unwrap().success());
}

#[tokio::test]
async fn events_tell_what_happens_to_a_job() {
    let mut pool = Pool::start(&[]).unwrap();
    let (mut following, mut told) = start(&pool, &["events", "--json"]);
    event(&mut told, "reset").await;
    pool.start_worker(&[]).unwrap();
    event(&mut told, "worker").await;
    let ran =
        json(&pool, &["submit", "--json", "--shell", "none", "--", "printf", "%s\n", "a b"]).await;
    let id = ran["jobId"].as_str().unwrap();
    for status in ["pending", "running", "completed"] {
        let change = event(&mut told, "job").await;
        assert_eq!((change["jobId"].as_str(), change["status"].as_str()), (Some(id), Some(status)));
    }
    following.kill().await.unwrap();
    assert_eq!(json(&pool, &["output", "--json", id]).await["stdout"], "a b\n");
    let again = lull(&pool, &["resubmit", id]).output().await.unwrap();
    let again = String::from_utf8(again.stdout).unwrap();
    assert_eq!(json(&pool, &["status", "--json", again.trim()]).await["resubmittedFrom"], id);
}

fn lull(pool: &Pool, args: &[&str]) -> Command {
    let mut command = Command::new(program("lull").unwrap());
    command.args(args).kill_on_drop(true).stdin(Stdio::null());
    command
        .env("LULL_URL", &pool.url)
        .env("LULL_CA", pool.ca_file())
        .env("LULL_TOKEN", pool.token(Role::Submitter).unwrap())
        .current_dir(pool.path(""));
    command
}

async fn json(pool: &Pool, args: &[&str]) -> Value {
    let said = lull(pool, args).output().await.unwrap();
    assert!(said.status.success(), "{said:?}");
    serde_json::from_slice(&said.stdout).unwrap()
}

fn start(pool: &Pool, args: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = lull(pool, args).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// The next event of this name.
async fn event(told: &mut Lines<BufReader<ChildStdout>>, name: &str) -> Value {
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(line) = told.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return event;
            }
        }
        panic!("lull ended before it told {name}")
    });
    found.await.unwrap_or_else(|_| panic!("lull did not tell {name}"))
}
