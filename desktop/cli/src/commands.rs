//! The commands, one file each.

pub(crate) mod cancel;
pub(crate) mod demo;
pub(crate) mod download;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod hold;
pub(crate) mod jobs;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod output;
pub(crate) mod release;
pub(crate) mod resubmit;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod whoami;
pub(crate) mod workers;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lull_shared::{client::Client, ids::JobId, jobs::JobFilter};

use crate::{cli::Command, output::Output, table::short};

/// Jobs among which a short id is looked for: the newest.
const SHORT_ID_REACH: u32 = 500;

/// The exit code of what was ended by Ctrl-C, as shells have it; a cancelled job's too.
const INTERRUPTED: u8 = 130;

/// Runs one command.
pub(crate) async fn run(command: Command, output: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(*args, output).await,
        Command::Submit(args) => submit::run(*args, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Output(args) => output::run(args, output).await,
        Command::Download(args) => download::run(args, output).await,
        Command::Explain(args) => explain::run(args, output).await,
        Command::Jobs(args) => jobs::run(args, output).await,
        Command::Workers(args) => workers::run(args, output).await,
        Command::Events(args) => events::run(args, output).await,
        Command::Cancel(args) => cancel::run(args, output).await,
        Command::Hold(args) => hold::run(args, output).await,
        Command::Release(args) => release::run(args, output).await,
        Command::Resubmit(args) => resubmit::run(args, output).await,
        Command::Login(args) => login::run(args, output).await,
        Command::Logout(args) => logout::run(&args, output),
        Command::Whoami(args) => whoami::run(args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
    }
}

/// The work's result; none when Ctrl-C came first. What the work holds is dropped then, and with it its files.
async fn unless_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        done = work => done.map(Some),
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("could not wait for Ctrl-C")?;
            Ok(None)
        }
    }
}

/// The job a person means: by its id, by the last digits of it, or in an array by its number.
pub(crate) async fn find_job(client: &Client, text: &str) -> anyhow::Result<JobId> {
    if let Some((array, index)) = text.split_once('/') {
        let Ok(index) = index.parse() else { bail!("{text:?} does not end in a number") };
        let array = Box::pin(find_job(client, array)).await?;
        return find_in_array(client, array, index).await;
    }
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let digits = text.to_ascii_lowercase();
    if digits.len() < 4 || !digits.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        bail!("{text:?} is no job id: `lull jobs` shows the ids");
    }
    let filter = JobFilter { limit: Some(SHORT_ID_REACH), ..JobFilter::default() };
    let jobs = client.list_jobs(&filter).await?.jobs;
    let found: Vec<JobId> =
        jobs.iter().map(|job| job.job_id).filter(|id| id.to_string().ends_with(&digits)).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => bail!("none of the last {SHORT_ID_REACH} jobs has an id that ends in {text}"),
        [one, ..] => bail!(
            "{} jobs have ids that end in {text}: give more of it than {}",
            found.len(),
            short(*one)
        ),
    }
}

/// The job with this number; the jobs of an array are made in the order of their numbers.
async fn find_in_array(client: &Client, array: JobId, index: u32) -> anyhow::Result<JobId> {
    let mut filter =
        JobFilter { array_id: Some(array), limit: Some(SHORT_ID_REACH), ..JobFilter::default() };
    loop {
        let page = client.list_jobs(&filter).await?;
        if let Some(job) = page.jobs.iter().find(|job| job.index == Some(index)) {
            return Ok(job.job_id);
        }
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            bail!("array {} has no job {index}, or no PC has taken it yet", short(array));
        }
    }
}
