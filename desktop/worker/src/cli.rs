//! The headless program: what it is told, and how it runs a worker until a signal ends it.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};
use lull_shared::local::{Connection, LocalHistory, LocalStatus};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::watch, time};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    Labels, Worker, WorkerConfig, WorkerHandle, backoff::Backoff, history, identity::JoinError,
    signals::Signals,
};

mod print;

/// How long a worker may take to end; its own limits are shorter.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Runs jobs of a Lull pool on this PC while its owner is away.
#[derive(Debug, Parser)]
#[command(
    name = "lull-worker",
    version,
    after_long_help = "Examples:
  lull-worker --join 'lull1.…@pool.example:7700'
          Join a pool and work while nobody uses this PC. Later starts need no code.
  lull-worker --always --slots 4
          A server without an owner: work always, four jobs at once.
  lull-worker --label gpu --label blender
          A PC that jobs asking for these labels may run on.
  lull-worker history
          What ran on this PC, newest first.

A join code is printed by `lull-coordinator join-code` on the coordinator's machine.
SIGTERM or Ctrl-C gives back what runs and ends the worker; a second one ends it at once."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Ask>,

    /// Join the pool that this code belongs to. Ignored when this PC is already part of it.
    #[arg(long, env = "LULL_JOIN", hide_env_values = true, value_name = "CODE")]
    join: Option<SecretString>,

    #[command(flatten)]
    place: Place,

    /// Run up to this many jobs at once [default: half the processors]
    #[arg(long, env = "LULL_SLOTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: Option<u32>,

    /// Work whatever this PC is used for: for a server with no owner to mind.
    #[arg(long, env = "LULL_ALWAYS")]
    always: bool,

    /// Run jobs as plain process trees even where they could be isolated: for a machine that does nothing else. Only jobs
    /// that ask for no isolation come here then.
    #[arg(long, env = "LULL_PLAIN")]
    plain: bool,

    /// What this PC has that jobs may ask for, such as `gpu` or a program's name; may be given several times
    #[arg(long = "label", env = "LULL_LABELS", value_delimiter = ',', value_name = "LABEL")]
    labels: Vec<String>,

    /// How log lines on standard error look [default: text on a terminal, json otherwise]
    #[arg(long, env = "LULL_LOG", value_name = "FORMAT")]
    log: Option<LogFormat>,

    /// Write {"pid":…,"workerId":…} to this file once the coordinator knows this worker.
    #[arg(long, env = "LULL_READY_FILE", value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// Where the worker's files are.
#[derive(Debug, clap::Args)]
struct Place {
    /// Keep identity, history, spool and the folders of running jobs here [default: the account's data folder]
    #[arg(long, env = "LULL_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Show what ran on this PC, newest first. Needs no server.
    History {
        /// Show at most this many.
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

/// Does what the command line says, and says how it went.
#[must_use]
pub fn main(cli: &Cli) -> ExitCode {
    start_logging(cli.log);
    let done = match &cli.command {
        Some(Ask::History { limit, json }) => show_history(cli, *limit, *json),
        None => work(cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn show_history(cli: &Cli, limit: u32, json: bool) -> anyhow::Result<()> {
    let path = data_dir(cli)?.join("history.db");
    let history: LocalHistory = history::read(&path, limit)
        .with_context(|| format!("could not read {}", path.display()))?;
    if json { print::json(&history) } else { print::table(&history) }.context("could not print")
}

fn work(cli: &Cli) -> anyhow::Result<()> {
    let data_dir = data_dir(cli)?;
    let labels = Labels::new(cli.labels.iter().cloned())?;
    let config =
        WorkerConfig { data_dir, slots: cli.slots, always: cli.always, labels, plain: cli.plain };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(cli, config));
    // Whatever still waits for the disk is not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(cli: &Cli, config: WorkerConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("could not listen to signals")?;
    let worker = Worker::start(config).await?;
    let served = tokio::select! {
        served = join_and_stay(cli, &worker) => served,
        () = signals.next() => Ok(()),
    };
    tokio::select! {
        ended = time::timeout(STOP_LIMIT, worker.stop()) => {
            if ended.is_err() {
                tracing::warn!("worker did not end in time");
            }
        }
        () = signals.next() => tracing::warn!("ended at once"),
    }
    served
}

/// Returns only when something is wrong.
async fn join_and_stay(cli: &Cli, worker: &WorkerHandle) -> anyhow::Result<()> {
    match (&cli.join, worker.membership()) {
        (Some(code), Some(membership)) if membership.is_of(code) => {}
        (Some(code), _) => join(code, worker).await?,
        (None, Some(_)) => {}
        (None, None) => bail!(
            "this PC is not part of a pool yet; run `lull-coordinator join-code` on the coordinator's machine and start \
             this worker with `lull-worker --join CODE`"
        ),
    }
    let status = registered(worker.status()).await;
    if let (Some(path), Some(status)) = (&cli.ready_file, status) {
        write_ready_file(path, &status)
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    std::future::pending().await
}

/// Joins; a coordinator that does not answer yet may do so later, anything else needs a person.
async fn join(code: &SecretString, worker: &WorkerHandle) -> anyhow::Result<()> {
    let mut backoff = Backoff::default();
    loop {
        match worker.join(code.expose_secret()).await {
            Ok(_) => return Ok(()),
            Err(error @ JoinError::Unreachable { .. }) => {
                tracing::warn!(error = %error, "could not join yet");
                time::sleep(backoff.next()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn registered(mut status: watch::Receiver<LocalStatus>) -> Option<LocalStatus> {
    let connected =
        |status: &LocalStatus| matches!(status.connection, Connection::Connected { .. });
    status.wait_for(connected).await.ok().map(|status| status.clone())
}

fn write_ready_file(path: &Path, status: &LocalStatus) -> io::Result<()> {
    let ready =
        serde_json::json!({ "pid": std::process::id(), "workerId": status.worker_id.to_string() });
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))?;
    file.write_all(ready.to_string().as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn data_dir(cli: &Cli) -> anyhow::Result<PathBuf> {
    if let Some(told) = &cli.place.data_dir {
        return Ok(told.clone());
    }
    directories::ProjectDirs::from("", "", "lull")
        .map(|lull| lull.data_local_dir().join("worker"))
        .context("this account has no home folder; say where to keep data with --data-dir DIR")
}

/// `RUST_LOG` chooses the levels; `info` unless told.
fn start_logging(format: Option<LogFormat>) {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let terminal = io::stderr().is_terminal();
    let by_place = if terminal { LogFormat::Text } else { LogFormat::Json };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format.unwrap_or(by_place) {
        LogFormat::Text => builder.with_ansi(terminal).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["lull-worker", "history", "--json", "--data-dir", "d"]);
        assert_eq!(data_dir(&cli.unwrap()).unwrap(), Path::new("d"));
        assert!(Cli::try_parse_from(["lull-worker", "--slots", "0"]).is_err());
    }

    #[test]
    fn a_join_code_stays_out_of_debug() {
        let cli = Cli::try_parse_from(["lull-worker", "--join", "lull1.secret"]).unwrap();
        assert!(!format!("{cli:?}").contains("secret\""), "{cli:?}");
        assert!(!format!("{cli:?}").contains("lull1."), "{cli:?}");
    }
}
