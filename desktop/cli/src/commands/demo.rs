//! `lull demo`: the main job on a pool of its own, on this computer, step by step.

mod pool;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use lull_shared::{
    client::Client,
    ids::{JobId, WorkerId},
    jobs::{CreateJob, JobState, Requirements},
    output::{OutputEvent, OutputView},
    workers::SandboxLevel,
};
use serde_json::json;
use tokio::{process::Command, time};

use self::pool::Pool;
use crate::{
    follow::{Followed, Interrupt, follow},
    output::{Output, Tone},
};

const HELP: &str = "\
Starts a coordinator and two workers in a temporary folder, reachable from this computer only, and takes everything
away at the end, also after Ctrl-C.

Examples:
  lull demo
  lull demo --keep     leaves the pool running, with its page, until you press Ctrl-C";

/// A worker that has not joined by then never will.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// The months of the example's sales.
const MONTHS: [&str; 6] = ["2026-05", "2026-06", "2026-07", "2026-08", "2026-09", "2026-10"];

/// See it work: a small pool on this computer, explained step by step
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Leave the pool running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let mut pool = Pool::new()?;
    let walked = tokio::select! {
        // Ctrl-C reaches the step under way too; what that makes of it is no failure.
        biased;
        _ = tokio::signal::ctrl_c() => None,
        walked = walk(&mut pool, &args, output) => Some(walked),
    };
    pool.stop().await;
    match walked {
        Some(walked) => {
            walked?;
            say(output, "Everything the demo started is stopped and its folder is gone.")?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            output.note("stopped; the demo's folder is gone");
            Ok(ExitCode::from(if args.keep { 0 } else { super::INTERRUPTED }))
        }
    }
}

async fn walk(pool: &mut Pool, args: &Args, output: &Output) -> anyhow::Result<()> {
    step(output, 1, "Start a coordinator, which keeps the queue, and two workers, which run jobs")?;
    pool.start_coordinator().await?;
    let client = pool.client()?;
    let mut workers = Vec::new();
    for number in 0..2 {
        workers.push(start_worker(pool, &client, number, &workers).await?);
    }
    lull(pool, &["workers"], output).await?;

    step(output, 2, "Hand over a folder and a command; watch it run; take the files home")?;
    let project = make_project(pool.folder())?;
    say(output, &format!("The project holds {} files of sales and a script.", MONTHS.len()))?;
    let home = pool.folder().join("results");
    let (project, home) = (project.display().to_string(), home.display().to_string());
    let mut line =
        vec!["run", "--dir", &project, "--output", "out/*", "--into", &home, "--min-sandbox", "l0"];
    line.push("--");
    line.extend(report_lines());
    lull(pool, &line, output).await?;
    let report = fs::read_to_string(Path::new(&home).join("out/report.txt"))
        .context("the job brought no report home")?;
    say(output, "\nThe report that came home:")?;
    say(output, report.trim_end())?;

    step(output, 3, "Kill a worker while it runs a job; the job moves to the other one")?;
    let (job_id, moved) = lose_a_worker(pool, &client, &workers, output).await?;
    lull(pool, &["status", &job_id.to_string()], output).await?;

    step(output, 4, "See what ran, and where")?;
    lull(pool, &["jobs"], output).await?;
    lull(pool, &["workers"], output).await?;
    say(output, "A PC that fell silent counts as offline after 30 s.")?;

    let page = pool.page().to_owned();
    if output.json {
        output.value(&json!({ "jobId": job_id, "moved": moved, "url": client.address() }))?;
    }
    if args.keep {
        step(output, 5, "Try it yourself")?;
        say(output, &format!("Page:   {page}\nToken:  {}", pool.token()?))?;
        say(output, "The pool runs until you press Ctrl-C.")?;
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Starts a worker and finds out under which id it joined.
async fn start_worker(
    pool: &mut Pool,
    client: &Client,
    number: usize,
    known: &[WorkerId],
) -> anyhow::Result<WorkerId> {
    let mut changes = client.follow_pool();
    pool.start_worker(number).await?;
    let joined = async {
        while let Some(change) = changes.next().await {
            change?;
            let listed = client.list_workers().await?.workers;
            if let Some(new) = listed.iter().find(|worker| !known.contains(&worker.worker_id)) {
                return Ok(new.worker_id);
            }
        }
        bail!("the feed of events ended");
    };
    let joined = tokio::select! {
        joined = time::timeout(JOIN_LIMIT, joined) => joined,
        ended = pool.worker_ended(number) => return Err(ended?),
    };
    joined.unwrap_or_else(|_| {
        bail!("the worker did not join within 30 s; it says:\n{}", pool.worker_log(number))
    })
}

/// Submits a job of some seconds, kills its worker on the way, and follows it to its end on the other one.
async fn lose_a_worker(
    pool: &mut Pool,
    client: &Client,
    workers: &[WorkerId],
    output: &Output,
) -> anyhow::Result<(JobId, bool)> {
    let request = CreateJob {
        command: counting_line().to_owned(),
        name: Some("count to eight".to_owned()),
        requirements: Requirements { min_sandbox: SandboxLevel::L0, ..Requirements::default() },
        ..CreateJob::default()
    };
    let job_id = client.create_job(&request).await?.job_id;
    wait_for_output(client, job_id).await?;
    let first = client.job_status(job_id).await?.worker_id.context("the job has no worker")?;
    let number = workers.iter().position(|id| *id == first).context("an unknown worker runs it")?;
    pool.kill_worker(number).await?;
    say(
        output,
        &format!("Worker {} ran it and was killed, as if its plug was pulled.", number + 1),
    )?;
    say(
        output,
        "Nobody is told: the coordinator notices when the lease runs out (6 s here, a minute elsewhere).",
    )?;
    let followed = if output.json {
        wait_for_end(client, job_id).await?
    } else {
        match follow(client, output, job_id, false, Interrupt::Leaves).await? {
            Followed::Ended(job) => *job,
            Followed::Left => bail!("the demo was interrupted"),
        }
    };
    if followed.status != JobState::Completed {
        bail!("the job ended as {}: {:?}", followed.status.name(), followed.error_message);
    }
    let moved = followed.worker_id != Some(first);
    if moved {
        say(output, "The other worker ran it from the beginning; its result is recorded once.")?;
    }
    Ok((job_id, moved))
}

async fn wait_for_output(client: &Client, job_id: JobId) -> anyhow::Result<()> {
    let mut events = client.follow_output(job_id, OutputView::Terminal);
    while let Some(event) = events.next().await {
        match event? {
            OutputEvent::Output { .. } => return Ok(()),
            OutputEvent::Ended { job } => {
                bail!("the job ended before it wrote anything: {:?}", job.error_message)
            }
            OutputEvent::Started { .. }
            | OutputEvent::Dropped { .. }
            | OutputEvent::Requeued { .. } => {}
        }
    }
    bail!("the stream of output ended before the job")
}

async fn wait_for_end(client: &Client, job_id: JobId) -> anyhow::Result<lull_shared::jobs::Job> {
    let mut events = client.follow_output(job_id, OutputView::Terminal);
    while let Some(event) = events.next().await {
        if let OutputEvent::Ended { job } = event? {
            return Ok(*job);
        }
    }
    bail!("the stream of output ended before the job")
}

/// Shows and runs a command of `lull` on the demo's pool.
async fn lull(pool: &Pool, args: &[&str], output: &Output) -> anyhow::Result<()> {
    let shown: Vec<String> = args
        .iter()
        .map(|arg| if arg.contains([' ', '*']) { format!("'{arg}'") } else { (*arg).to_owned() })
        .collect();
    say(output, &output.paint(Tone::Strong, &format!("$ lull {}", shown.join(" "))))?;
    let program = std::env::current_exe().context("could not find this program")?;
    let mut command = Command::new(program);
    command.args(args).envs(pool.environment()?).kill_on_drop(true);
    if output.json {
        command.stdout(std::process::Stdio::null());
    }
    let status = command.status().await.context("could not start this program again")?;
    if !status.success() {
        bail!("`lull {}` ended with {status}", args.first().copied().unwrap_or_default());
    }
    Ok(())
}

fn step(output: &Output, number: u32, what: &str) -> anyhow::Result<()> {
    say(output, &format!("\n{}", output.paint(Tone::Good, &format!("{number}. {what}"))))
}

/// Tells the person watching; with `--json` beside the result.
fn say(output: &Output, text: &str) -> anyhow::Result<()> {
    if output.json {
        output.note(text);
        Ok(())
    } else {
        output.line(text)
    }
}

/// Six months of sales, a hundred lines each, and the script that sums them up.
fn make_project(folder: &Path) -> anyhow::Result<PathBuf> {
    let project = folder.join("project");
    fs::create_dir_all(project.join("sales"))?;
    for (month, name) in MONTHS.iter().enumerate() {
        let lines: String = (0..100)
            .map(|line| format!("item-{},{}\n", line % 7, (line * 37 + month * 11) % 90 + 10))
            .collect();
        fs::write(project.join(format!("sales/{name}.csv")), lines)?;
    }
    let (name, script) = report_script();
    fs::write(project.join(name), script)?;
    Ok(project)
}

#[cfg(not(windows))]
const fn report_script() -> (&'static str, &'static str) {
    (
        "report.sh",
        r#"mkdir -p out
for file in sales/*.csv; do
  awk -F, -v month="$(basename "$file" .csv)" '{ sum += $2 } END { printf "%s  %6d\n", month, sum }' "$file"
  sleep 0.4
done | tee out/report.txt
"#,
    )
}

#[cfg(not(windows))]
const fn report_lines() -> [&'static str; 2] {
    ["sh report.sh", "echo \"$(wc -l < out/report.txt) months summed up\""]
}

#[cfg(not(windows))]
const fn counting_line() -> &'static str {
    "for n in 1 2 3 4 5 6 7 8; do echo \"step $n of 8\"; sleep 0.5; done"
}

#[cfg(windows)]
const fn report_script() -> (&'static str, &'static str) {
    (
        "report.cmd",
        "@echo off\r\nmkdir out\r\nfor %%f in (sales\\*.csv) do call :sum %%f %%~nf\r\ntype out\\report.txt\r\n\
         exit /b 0\r\n:sum\r\nset /a total=0\r\nfor /f \"tokens=2 delims=,\" %%n in (%1) do set /a total+=%%n\r\n\
         >>out\\report.txt echo %2  %total%\r\nexit /b 0\r\n",
    )
}

#[cfg(windows)]
const fn report_lines() -> [&'static str; 2] {
    ["report.cmd", "dir out"]
}

#[cfg(windows)]
const fn counting_line() -> &'static str {
    "for /L %n in (1,1,8) do @(echo step %n of 8& ping -n 2 127.0.0.1 >nul)"
}
