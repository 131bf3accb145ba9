//! No-op jobs a second through one worker, next to `xargs` running the same.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lull_bench::pool::Pool;
use lull_shared::{
    client::Client,
    credentials::Role,
    jobs::{CreateJob, JobFilter},
};

use crate::figures::{line, rate};

const SUBMITTED_AT_ONCE: usize = 32;

pub(crate) async fn run(jobs: u32, slots: u32) -> anyhow::Result<()> {
    let mut pool = Pool::start(&[])?;
    pool.start_worker(&[&format!("--slots={slots}")])?;
    let client = pool.client(Role::Submitter)?;

    let ours = through_the_pool(&client, jobs).await?;
    let sandboxed = by_xargs(jobs, slots, BWRAP)?;
    let bare = by_xargs(jobs, slots, &["true"])?;

    line(&format!("{jobs} no-op jobs, {slots} slots, sandboxed"), &per_second(jobs, ours));
    line(&format!("xargs -P{slots} bwrap … true"), &per_second(jobs, sandboxed));
    line(&format!("xargs -P{slots} true"), &per_second(jobs, bare));
    line("Lull / xargs bwrap", &format!("{:8.2}", ratio(sandboxed, ours)));
    line("Lull / xargs", &format!("{:8.2}", ratio(bare, ours)));
    Ok(())
}

/// About what the worker's sandbox does, so that the comparison is a fair one.
const BWRAP: &[&str] = &[
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
    "true",
];

/// From the first submission to the last result.
async fn through_the_pool(client: &Client, jobs: u32) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    stream::iter(0..jobs)
        .map(|_| async {
            let job = CreateJob { command: "true".to_owned(), ..CreateJob::default() };
            client.create_job(&job).await.map(drop)
        })
        .buffer_unordered(SUBMITTED_AT_ONCE)
        .try_collect::<()>()
        .await?;
    loop {
        let filter = JobFilter { limit: Some(1), ..JobFilter::default() };
        let counts = client.list_jobs(&filter).await?.counts;
        anyhow::ensure!(counts.failed == 0, "{} jobs failed", counts.failed);
        if counts.completed >= u64::from(jobs) {
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn by_xargs(jobs: u32, slots: u32, command: &[&str]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut child = Command::new("xargs")
        .args([&format!("-P{slots}"), "-n1", "sh", "-c"])
        .arg(command.join(" "))
        .stdin(Stdio::piped())
        .spawn()
        .context("xargs could not be started")?;
    let input: String = (0..jobs).map(|number| format!("{number}\n")).collect();
    child.stdin.take().context("its input is piped")?.write_all(input.as_bytes())?;
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "xargs ended with {status}");
    Ok(begun.elapsed())
}

fn per_second(jobs: u32, took: Duration) -> String {
    format!("{:8.0} jobs/s", rate(jobs, took))
}

fn ratio(reference: Duration, ours: Duration) -> f64 {
    reference.as_secs_f64() / ours.as_secs_f64()
}
