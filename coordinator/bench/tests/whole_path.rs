//! The real programs together: what a person does, and what must survive when one of them is killed.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{
    fs,
    future::Future,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::StreamExt as _;
use lull_bench::{
    pool::Pool,
    process::{PATIENCE, program},
};
use lull_shared::{
    client::Client,
    credentials::Role,
    ids::JobId,
    jobs::{AttemptEnding, CreateJob, Job, JobFilter, JobState},
    output::{OutputEvent, OutputQuery, OutputView, Stream},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

/// Short enough for a test to see a lease end, long enough for a slow machine to renew it.
const SHORT_LEASE: &[&str] = &["--lease=5s"];

#[tokio::test]
async fn a_folder_goes_out_and_its_results_and_exit_code_come_home() {
    let mut pool = Pool::start(&[]).unwrap();
    pool.start_worker(&[]).unwrap();
    let project = pool.path("project");
    fs::create_dir_all(project.join("sub")).unwrap();
    fs::write(project.join("numbers.txt"), "3\n1\n2\n").unwrap();
    fs::write(project.join("sub/name.txt"), "lull").unwrap();

    let ran = lull(&pool, &["run", "--dir"])
        .arg(&project)
        .args(["--output", "out/*", "--env", "GREETING=hello", "--into"])
        .arg(pool.path("home"))
        .args([
            "--",
            "mkdir out; sort numbers.txt > out/sorted.txt; echo $GREETING $(cat sub/name.txt)",
        ])
        .args(["echo to stderr >&2; exit 7", "echo never"])
        .output()
        .await
        .unwrap();

    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "hello lull\n");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("to stderr\n"));
    assert_eq!(fs::read_to_string(pool.path("home/out/sorted.txt")).unwrap(), "1\n2\n3\n");
}

#[tokio::test]
async fn output_arrives_while_the_command_still_runs() {
    let mut pool = Pool::start(&[]).unwrap();
    pool.start_worker(&[]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();

    // The command ends only once it is cancelled, so what is read here was read while it ran.
    let mut following = lull(&pool, &["run", "--", "echo first; while true; do sleep 1; done"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let line = within("the first line", lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("first"));

    let job = only_job(&client).await;
    assert_eq!(job.status, JobState::Running);
    client.cancel_job(job.job_id).await.unwrap();
    let status = within("lull's end", following.wait()).await.unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(client.job_status(job.job_id).await.unwrap().status, JobState::Cancelled);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_cancelled_job_is_dead_within_ten_seconds() {
    let mut pool = Pool::start(&[]).unwrap();
    pool.start_worker(&[]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let mark = "sleep\0987654";
    let job = submit(&client, &["setsid sleep 987654 & sleep 987654"]).await;
    eventually("both processes run", async || processes(mark) == 2).await;

    let asked = Instant::now();
    client.cancel_job(job).await.unwrap();
    eventually("both are dead", async || processes(mark) == 0).await;
    // The heartbeat that brings it comes every ten seconds; the rest is a slow machine's.
    assert!(asked.elapsed() < Duration::from_millis(10_500), "{:?}", asked.elapsed());
    eventually("it ended", async || {
        client.job_status(job).await.unwrap().status == JobState::Cancelled
    })
    .await;
    assert_eq!(client.job_status(job).await.unwrap().attempts.len(), 1);
}

/// How many processes have a command line that begins like this.
#[cfg(target_os = "linux")]
fn processes(command: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(command.as_bytes())).count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn l1_a_flood_without_a_newline_is_cut_counted_and_takes_no_memory() {
    const BYTES: u64 = 60_000_000;
    let mut pool = Pool::start(&[]).unwrap();
    pool.start_worker(&[]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let idle = pool.worker(0).peak_memory_bytes().unwrap();

    let flood = format!("yes | tr -d '\\n' | head -c {BYTES}; echo the end");
    let job = submit(&client, &[&flood]).await;
    eventually("the job has ended", async || {
        client.job_status(job).await.unwrap().status == JobState::Completed
    })
    .await;

    let mut events = client.follow_output(job, OutputView::Raw);
    let (mut kept, mut dropped) = (0, 0);
    while let Some(event) = events.next().await {
        match event.unwrap() {
            OutputEvent::Output { data, .. } => kept += STANDARD.decode(data).unwrap().len() as u64,
            OutputEvent::Dropped { bytes, .. } => dropped += bytes,
            OutputEvent::Started { .. }
            | OutputEvent::Requeued { .. }
            | OutputEvent::Ended { .. } => {}
        }
    }
    assert_eq!(kept + dropped, BYTES + 8);
    assert!((14 << 20..18 << 20).contains(&kept), "{kept} bytes are kept");
    let shown = client.job_status(job).await.unwrap().stdout.unwrap();
    assert!(shown.ends_with("the end\n"));
    let grown = pool.worker(0).peak_memory_bytes().unwrap() - idle;
    assert!(grown < 32 << 20, "the worker grew by {grown} bytes");
}

#[tokio::test]
async fn a_zip_that_was_sent_once_is_not_sent_again() {
    let mut pool = Pool::start(&[]).unwrap();
    pool.start_worker(&[]).unwrap();
    let project = pool.path("project");
    fs::create_dir_all(&project).unwrap();
    fs::write(project.join("input.txt"), vec![b'x'; 100_000]).unwrap();

    let submit = async || {
        let said = lull(&pool, &["run", "--json", "--dir"])
            .arg(&project)
            .args(["--", "cat input.txt | wc -c"])
            .output()
            .await
            .unwrap();
        assert!(said.status.success(), "{said:?}");
    };
    submit().await;
    let blobs = files_under(&pool.coordinator_data().join("blobs"));
    submit().await;
    assert_eq!(files_under(&pool.coordinator_data().join("blobs")), blobs);
}

#[tokio::test]
async fn a_job_whose_worker_is_killed_runs_on_another_one_and_is_recorded_once() {
    let mut pool = Pool::start(SHORT_LEASE).unwrap();
    let doomed = pool.start_worker(&["--slots=1"]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let job = submit(&client, &["echo begun", "sleep 5", "echo done"]).await;
    output_contains(&client, job, "begun\n").await;

    pool.worker(doomed).kill().unwrap();
    pool.start_worker(&["--slots=1"]).unwrap();

    let job = ended(&client, job).await;
    assert_eq!(job.status, JobState::Completed, "{job:?}");
    assert_eq!(job.exit_code, Some(0));
    assert_eq!(endings(&job), [AttemptEnding::WorkerLost, AttemptEnding::Succeeded]);
    assert_ne!(job.attempts[0].worker_id, job.attempts[1].worker_id);
    assert_eq!(stdout(&client, &job).await, "begun\ndone\n");
}

#[tokio::test]
async fn a_worker_that_was_killed_gives_its_job_back_as_soon_as_it_starts_again() {
    // The lease is the usual minute: only the worker's own word can free the job in time.
    let mut pool = Pool::start(&[]).unwrap();
    let worker = pool.start_worker(&["--slots=1"]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let job = submit(&client, &["echo begun", "sleep 3", "echo done"]).await;
    output_contains(&client, job, "begun\n").await;

    let killed = Instant::now();
    pool.worker(worker).kill().unwrap();
    pool.restart_worker(worker, &["--slots=1"]).unwrap();

    let job = ended(&client, job).await;
    assert!(killed.elapsed() < Duration::from_secs(55), "the lease had to end first");
    assert_eq!(job.status, JobState::Completed, "{job:?}");
    assert_eq!(endings(&job), [AttemptEnding::GivenBack, AttemptEnding::Succeeded]);
}

#[tokio::test]
async fn a_coordinator_killed_mid_job_loses_and_repeats_no_byte() {
    let mut pool = Pool::start(&[]).unwrap();
    pool.start_worker(&["--slots=1"]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let job = submit(
        &client,
        &["i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.01; done"],
    )
    .await;

    // At three moments of the job; the worker writes on all the while.
    for seen in ["line 20\n", "line 120\n", "line 250\n"] {
        output_contains(&client, job, seen).await;
        pool.coordinator().kill().unwrap();
        pool.start_coordinator(&[]).unwrap();
    }

    let job = ended(&client, job).await;
    assert_eq!(job.status, JobState::Completed, "{job:?}");
    assert_eq!(endings(&job), [AttemptEnding::Succeeded]);
    let expected: String = (1..=400).map(|number| format!("line {number}\n")).collect();
    assert_eq!(stdout(&client, &job).await, expected);
}

#[tokio::test]
async fn a_job_that_ends_while_the_coordinator_is_down_is_delivered_afterwards() {
    let mut pool = Pool::start(&[]).unwrap();
    let worker = pool.start_worker(&["--slots=1"]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let job = submit(&client, &["echo begun", "sleep 1", "echo done", "exit 3"]).await;
    output_contains(&client, job, "begun\n").await;

    pool.coordinator().kill().unwrap();
    let spool = pool.worker_data(worker).join("spool");
    eventually("the result is on the worker's disk", async || !files_under(&spool).is_empty())
        .await;
    // The worker goes too: what was on its disk is enough.
    pool.worker(worker).kill().unwrap();
    pool.start_coordinator(&[]).unwrap();
    pool.restart_worker(worker, &["--slots=1"]).unwrap();

    let job = ended(&client, job).await;
    assert_eq!(job.status, JobState::Failed, "{job:?}");
    assert_eq!(job.exit_code, Some(3));
    assert_eq!(endings(&job), [AttemptEnding::CommandFailed]);
    assert_eq!(stdout(&client, &job).await, "begun\ndone\n");
}

#[tokio::test]
async fn whatever_is_killed_whenever_every_job_is_recorded_once() {
    let mut pool = Pool::start(SHORT_LEASE).unwrap();
    let worker = pool.start_worker(&["--slots=2"]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let mut jobs = Vec::new();
    for number in 0..30 {
        jobs.push(submit(&client, &[&format!("echo job {number}"), "sleep 0.2"]).await);
    }

    // The moments differ: each kill waits for another number of finished jobs.
    for round in 0..6_u64 {
        let finished = round * 4 + 1;
        eventually("some jobs have ended", async || {
            counts(&client).await.is_some_and(|done| done >= finished)
        })
        .await;
        if round % 2 == 0 {
            pool.worker(worker).kill().unwrap();
            pool.restart_worker(worker, &["--slots=2"]).unwrap();
        } else {
            pool.coordinator().kill().unwrap();
            pool.start_coordinator(SHORT_LEASE).unwrap();
        }
    }

    for (number, id) in jobs.into_iter().enumerate() {
        let job = ended(&client, id).await;
        assert_eq!(job.status, JobState::Completed, "{job:?}");
        let successes = endings(&job).into_iter().filter(|e| *e == AttemptEnding::Succeeded);
        assert_eq!(successes.count(), 1, "{job:?}");
        assert_eq!(stdout(&client, &job).await, format!("job {number}\n"));
    }
}

#[tokio::test]
async fn a_worker_told_to_stop_gives_its_job_back_and_ends_well() {
    let mut pool = Pool::start(&[]).unwrap();
    let first = pool.start_worker(&["--slots=1"]).unwrap();
    let client = pool.client(Role::Submitter).unwrap();
    let job = submit(&client, &["echo begun", "sleep 2"]).await;
    output_contains(&client, job, "begun\n").await;

    let status = pool.worker(first).terminate().unwrap();
    assert!(status.success(), "{status}\n{}", pool.worker(first).log());
    pool.start_worker(&["--slots=1"]).unwrap();

    let job = ended(&client, job).await;
    assert_eq!(endings(&job), [AttemptEnding::GivenBack, AttemptEnding::Succeeded]);
}

#[tokio::test]
async fn secrets_reach_no_log() {
    let mut pool = Pool::start(&[]).unwrap();
    let worker = pool.start_worker(&[]).unwrap();
    let token = pool.token(Role::Submitter).unwrap();
    let ran = lull(&pool, &["run", "--env", "PASSWORD=very-secret-value", "--", "true"])
        .env("LULL_TOKEN", &token)
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");

    let logs = pool.coordinator().log() + &pool.worker(worker).log();
    assert!(!logs.contains(secret_of(&token)), "{logs}");
    assert!(!logs.contains("very-secret-value"), "{logs}");
    let kept = fs::read_to_string(pool.worker_data(worker).join("worker.json")).unwrap();
    let worker_token = kept.split('"').find(|text| text.starts_with("lullw_")).unwrap();
    assert!(!logs.contains(secret_of(worker_token)), "{logs}");
}

/// What proves a token `lull._<id>_<secret>`; the secret may itself hold underscores.
fn secret_of(token: &str) -> &str {
    let secret = token.splitn(3, '_').nth(2).unwrap();
    assert!(secret.len() >= 32, "not the whole secret");
    secret
}

/// `lull` with these arguments, signed in to the pool.
fn lull(pool: &Pool, args: &[&str]) -> Command {
    let mut command = Command::new(program("lull").unwrap());
    command
        .args(args)
        .env("LULL_URL", &pool.url)
        .env("LULL_TOKEN", pool.token(Role::Submitter).unwrap())
        .env("LULL_CA", pool.ca_file())
        .kill_on_drop(true);
    command
}

async fn submit(client: &Client, lines: &[&str]) -> JobId {
    let job = CreateJob { command: lines.join("\n"), ..CreateJob::default() };
    client.create_job(&job).await.unwrap().job_id
}

/// Follows the job, over every restart, until its standard output so far contains the text.
async fn output_contains(client: &Client, job: JobId, text: &str) {
    let mut seen = Vec::new();
    let mut events = client.follow_output(job, OutputView::Terminal);
    within("the expected output", async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            match events.next().await.expect("the job is still running").unwrap() {
                OutputEvent::Output { data, stream: Stream::Stdout, .. } => {
                    // The terminal's view ends lines with CR LF or LF; only the text matters here.
                    seen.extend(data.replace('\r', "").into_bytes());
                }
                OutputEvent::Ended { job } => panic!("ended without it: {job:?}"),
                OutputEvent::Output { .. }
                | OutputEvent::Started { .. }
                | OutputEvent::Dropped { .. }
                | OutputEvent::Requeued { .. } => {}
            }
        }
    })
    .await;
}

async fn ended(client: &Client, job: JobId) -> Job {
    let mut events = client.follow_output(job, OutputView::Raw);
    within("the job's end", async {
        loop {
            if let OutputEvent::Ended { .. } = events.next().await.expect("an end").unwrap() {
                return client.job_status(job).await.unwrap();
            }
        }
    })
    .await
}

fn endings(job: &Job) -> Vec<AttemptEnding> {
    job.attempts.iter().filter_map(|attempt| attempt.ending).collect()
}

async fn stdout(client: &Client, job: &Job) -> String {
    let query = OutputQuery {
        job_id: job.job_id,
        stream: Some(Stream::Stdout),
        attempt: Some(job.attempt),
        view: None,
    };
    String::from_utf8(client.output_bytes(&query).await.unwrap().to_vec()).unwrap()
}

async fn only_job(client: &Client) -> Job {
    let mut jobs = client.list_jobs(&JobFilter::default()).await.unwrap().jobs;
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

/// How many jobs have ended; `None` while the coordinator is away.
async fn counts(client: &Client) -> Option<u64> {
    let counts = client.list_jobs(&JobFilter::default()).await.ok()?.counts;
    Some(counts.completed + counts.failed + counts.cancelled)
}

fn files_under(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

async fn within<T>(what: &str, waited_for: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, waited_for).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what} in vain"),
    }
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
