//! How fast short jobs go through the worker alone, next to the bare start of the same command. Prints figures:
//! `cargo test --release -p lull-worker --lib speed -- --ignored --nocapture --test-threads 1`
#![expect(clippy::print_stdout, reason = "figures are what this is for")]

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::sandbox::{PlainTree, Sandbox, default_sandbox};

const SLOTS: u32 = 2;
const JOBS: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn speed_of_a_plain_tree() {
    let bare = rate_of(JOBS, || shell().arg("-c").arg("true").status());
    let sandbox: Arc<dyn Sandbox> = Arc::new(PlainTree::new("measured".to_owned()));
    measure("plain", sandbox, bare).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn speed_of_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let bare = rate_of(JOBS / 4, || bare_sandbox(folder.path()).status());
    measure("sandboxed", default_sandbox().await, bare).await;
}

async fn measure(what: &str, sandbox: Arc<dyn Sandbox>, bare: f64) {
    println!("{what}: bare start, {SLOTS} at once: {bare:.0}/s");
    for (takes, label) in [(0, "an instant coordinator"), (2, "one that takes 2 ms")] {
        let (folder, coordinator, worker) = worker(Arc::clone(&sandbox), takes).await;
        let began = Instant::now();
        coordinator.offer_many((0..JOBS).map(|_| short_job()));
        done(&coordinator, JOBS).await;
        let rate = JOBS as f64 / began.elapsed().as_secs_f64();
        println!("  {label}: {rate:.0}/s, {:.2} of bare", rate / bare);

        let mut took = Vec::new();
        for number in 1..=200 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let began = Instant::now();
            coordinator.offer(short_job());
            done(&coordinator, JOBS + number).await;
            took.push(began.elapsed());
        }
        took.sort();
        println!("    one job, offer to result: p50 {:?}, p99 {:?}", took[100], took[198]);
        worker.stop().await;
        drop(folder);
    }
}

fn short_job() -> Assignment {
    Assignment { min_sandbox: SandboxLevel::L0, ..job("true") }
}

async fn done(coordinator: &Coordinator, count: usize) {
    while coordinator.now().results.len() < count {
        coordinator.answered().await;
    }
}

async fn worker(sandbox: Arc<dyn Sandbox>, takes_ms: u64) -> (TempDir, Coordinator, WorkerHandle) {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::default();
    coordinator.now().pin = Some(SpkiPin([7; 32]));
    coordinator.now().takes = Duration::from_millis(takes_ms);
    let config = WorkerConfig { data_dir: folder.path().to_owned(), ..config(true, SLOTS) };
    let ground = Ground {
        connector: Arc::new(coordinator.clone()),
        machine: Box::new(Pc::default()),
        sandbox,
        clock: Arc::new(SystemClock),
    };
    let worker = start_on(config, ground).await.unwrap();
    worker.join(&code(7)).await.unwrap();
    (folder, coordinator, worker)
}

fn shell() -> Command {
    let mut command = Command::new("/bin/sh");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What the sandbox starts for the same command, by hand.
fn bare_sandbox(folder: &Path) -> Command {
    let mut command = Command::new("/usr/bin/bwrap");
    command
        .args(crate::sandbox::common_arguments())
        .arg("--bind")
        .arg(folder)
        .args(["/work", "--chdir", "/work", "/bin/sh", "-c", "true"])
        .stdin(Stdio::null());
    command
}

/// Runs per second, as many at once as the worker has slots.
fn rate_of(
    count: usize,
    run: impl Fn() -> std::io::Result<std::process::ExitStatus> + Sync,
) -> f64 {
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..SLOTS {
            scope.spawn(|| {
                for _ in 0..count / SLOTS as usize {
                    assert!(run().unwrap().success());
                }
            });
        }
    });
    count as f64 / began.elapsed().as_secs_f64()
}
