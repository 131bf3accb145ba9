//! From submitting a command to the first byte of its output, on an idle waiting worker.

use std::{io::Read as _, process::Stdio, time::Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lull_bench::pool::Pool;
use lull_shared::{
    client::Client,
    credentials::Role,
    jobs::{CreateJob, JobState},
    output::{OutputEvent, OutputView},
};

use crate::figures::{Samples, line, millis, print_disk_sync};

const COMMAND: &str = "echo hello";
/// Jobs before the counting begins: connections, caches and the first start of everything.
const WARM_UP: u32 = 10;

pub(crate) async fn run(jobs: u32) -> anyhow::Result<()> {
    let mut pool = Pool::start(&[])?;
    pool.start_worker(&["--slots=1"])?;
    let client = pool.client(Role::Submitter)?;

    let mut first_byte = Samples::default();
    let mut whole = Samples::default();
    for number in 0..WARM_UP + jobs {
        let (to_first_byte, to_end) = one_job(&client).await?;
        if number >= WARM_UP {
            first_byte.push(to_first_byte);
            whole.push(to_end);
        }
    }

    let mut bare = Samples::default();
    for _ in 0..jobs {
        bare.push(one_bare_command()?);
    }

    first_byte.print("submit to first byte of output, sandboxed");
    whole.print("submit to the end of the job, sandboxed");
    bare.print("the same command started bare, to its first byte");
    print_disk_sync(&pool.coordinator_data())?;
    line(
        "what Lull adds at p50",
        &format!("{:.2} ms", millis(first_byte.percentile(50)) - millis(bare.percentile(50))),
    );
    Ok(())
}

async fn one_job(client: &Client) -> anyhow::Result<(std::time::Duration, std::time::Duration)> {
    let begun = Instant::now();
    let job = client
        .create_job(&CreateJob { command: COMMAND.to_owned(), ..CreateJob::default() })
        .await?;
    let mut events = client.follow_output(job.job_id, OutputView::Raw);
    let mut first = None;
    while let Some(event) = events.next().await {
        match event? {
            OutputEvent::Output { .. } => {
                first.get_or_insert_with(|| begun.elapsed());
            }
            OutputEvent::Ended { job } => {
                anyhow::ensure!(job.status == JobState::Completed, "the job {:?}", job.status);
                return Ok((first.context("the job wrote nothing")?, begun.elapsed()));
            }
            OutputEvent::Started { .. }
            | OutputEvent::Dropped { .. }
            | OutputEvent::Requeued { .. } => {}
        }
    }
    anyhow::bail!("the job's output ended before the job")
}

fn one_bare_command() -> anyhow::Result<std::time::Duration> {
    let begun = Instant::now();
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", COMMAND])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut byte = [0];
    child.stdout.as_mut().context("the output is piped")?.read_exact(&mut byte)?;
    let took = begun.elapsed();
    child.wait()?;
    Ok(took)
}
