//! Jobs a second through a real worker, with and without its sandbox, next to `xargs` running the same commands.

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
    jobs::{CreateJob, JobFilter, Requirements},
    output::{OutputEvent, OutputView},
    workers::SandboxLevel,
};

use crate::figures::{Samples, line, rate};

const SUBMITTED_AT_ONCE: usize = 64;
const NO_OP: &str = "true";
const SHORT: &str = "sleep 0.1";

pub(crate) async fn run(jobs: u32, short_jobs: u32, slots: u32) -> anyhow::Result<()> {
    for (name, options, level, wrap) in [
        ("plain", &["--plain"][..], SandboxLevel::L0, &[][..]),
        ("sandboxed", &[], SandboxLevel::L2, BWRAP),
    ] {
        let mut pool = Pool::start(&[])?;
        let slots_option = format!("--slots={slots}");
        pool.start_worker(&[options, &[&slots_option]].concat())?;
        let client = pool.client(Role::Submitter)?;
        // Connections, caches and the first start of everything.
        through_the_pool(&client, NO_OP, 50, level).await?;

        for (command, jobs) in [(NO_OP, jobs), (SHORT, short_jobs)] {
            let ours = through_the_pool(&client, command, jobs, level).await?;
            let theirs = by_xargs(jobs, slots, wrap, command)?;
            line(&format!("{jobs} × `{command}`, {slots} slots, {name}"), &per_second(jobs, ours));
            line(&format!("  xargs -P{slots}, {name}"), &per_second(jobs, theirs));
            let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
            line("  Lull / xargs", &format!("{ratio:8.2}"));
        }
        one_by_one(&client, level, name).await?;
    }
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
];

/// From the first submission to the last result, the submissions among it.
async fn through_the_pool(
    client: &Client,
    command: &str,
    jobs: u32,
    level: SandboxLevel,
) -> anyhow::Result<Duration> {
    let ended_before = ended(client).await?;
    let begun = Instant::now();
    stream::iter(0..jobs)
        .map(|_| async { client.create_job(&a_job(command, level)).await.map(drop) })
        .buffer_unordered(SUBMITTED_AT_ONCE)
        .try_collect::<()>()
        .await?;
    while ended(client).await? < ended_before + u64::from(jobs) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(begun.elapsed())
}

/// How many jobs have completed; fails when one failed.
async fn ended(client: &Client) -> anyhow::Result<u64> {
    let filter = JobFilter { limit: Some(1), ..JobFilter::default() };
    let counts = client.list_jobs(&filter).await?.counts;
    anyhow::ensure!(counts.failed == 0, "{} jobs failed", counts.failed);
    Ok(counts.completed)
}

fn a_job(command: &str, min_sandbox: SandboxLevel) -> CreateJob {
    CreateJob {
        command: command.to_owned(),
        requirements: Requirements { min_sandbox, ..Requirements::default() },
        ..CreateJob::default()
    }
}

/// From submitting one no-op job to its result, on an idle worker.
async fn one_by_one(client: &Client, level: SandboxLevel, name: &str) -> anyhow::Result<()> {
    let mut samples = Samples::default();
    for _ in 0..200 {
        let begun = Instant::now();
        let job = client.create_job(&a_job(NO_OP, level)).await?;
        let mut events = client.follow_output(job.job_id, OutputView::Raw);
        while let Some(event) = events.next().await {
            if matches!(event?, OutputEvent::Ended { .. }) {
                break;
            }
        }
        samples.push(begun.elapsed());
    }
    samples.print(&format!("one no-op job, submit to result, {name}"));
    Ok(())
}

fn by_xargs(jobs: u32, slots: u32, wrap: &[&str], command: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut child = Command::new("xargs")
        .args([&format!("-P{slots}"), "-n1"])
        .args(wrap)
        .args(["sh", "-c", command])
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
