//! `lull output`: what a job wrote, so far or as it writes it.

use std::process::ExitCode;

use clap::ValueEnum;
use lull_shared::output::{OutputQuery, Stream};
use serde::Serialize;

use super::find_job;
use crate::{
    config,
    follow::{Interrupt, follow},
    output::Output,
};

const HELP: &str = "\
Standard output of the job goes to standard output, its standard error to standard error.

Examples:
  lull output 4f2a91c0
  lull output -f 4f2a91c0
  lull output --stream stderr --attempt 1 4f2a91c0";

/// Show what a job wrote; with -f as it writes it
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The job: its id, or the last digits of it
    job: String,

    /// Go on until the job ends; Ctrl-C leaves the job alone
    #[arg(short, long, conflicts_with_all = ["stream", "attempt"])]
    follow: bool,

    /// Only this stream
    #[arg(long, value_enum)]
    stream: Option<Which>,

    /// Number of the attempt [default: the last one]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,

    /// Pass output on as it is, also to a terminal
    #[arg(long)]
    raw: bool,
}

/// A stream, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

#[derive(Default, Serialize)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let job_id = find_job(&client, &args.job).await?;
    if args.follow {
        follow(&client, output, job_id, args.raw, Interrupt::Leaves).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let streams = match args.stream {
        Some(Which::Stdout) => vec![Stream::Stdout],
        Some(Which::Stderr) => vec![Stream::Stderr],
        None => Stream::ALL.to_vec(),
    };
    let mut written = Written::default();
    for stream in streams {
        let query = OutputQuery { job_id, stream: Some(stream), attempt: args.attempt, view: None };
        let bytes = client.output_bytes(&query).await?;
        if output.json {
            let text = Some(String::from_utf8_lossy(&bytes).into_owned());
            match stream {
                Stream::Stdout => written.stdout = text,
                Stream::Stderr => written.stderr = text,
            }
            continue;
        }
        // Asked for alone, standard error is the result and goes where results go.
        let to = if args.stream.is_some() { Stream::Stdout } else { stream };
        match output.filter(to, args.raw) {
            Some(mut filter) => {
                let text = filter.push(&bytes) + &filter.finish();
                output.bytes(to, text.as_bytes())?;
            }
            None => output.bytes(to, &bytes)?,
        }
    }
    if output.json {
        output.value(&written)?;
    }
    Ok(ExitCode::SUCCESS)
}
