//! `lull-bench`: prints what Lull costs on this machine, next to the bare thing in the same run.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod figures;
mod large_file;
mod latency;
mod throughput;
mod writes;

/// Prints what Lull costs on this machine, next to the bare thing in the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From submitting a command to the first byte of its output, on an idle waiting worker
    Latency {
        /// How many jobs, one after the other
        #[arg(long, default_value_t = 200)]
        jobs: u32,
    },
    /// No-op jobs a second through one worker, next to `xargs` running the same
    Throughput {
        /// How many jobs
        #[arg(long, default_value_t = 2000)]
        jobs: u32,
        /// Slots of the worker, and processes of xargs
        #[arg(long, default_value_t = 2)]
        slots: u32,
    },
    /// Accepted submissions a second, next to a bare axum handler with the same payload
    Writes {
        /// How many requests each side gets
        #[arg(long, default_value_t = 20_000)]
        requests: u32,
        /// How many at once
        #[arg(long, default_value_t = 64)]
        at_once: u32,
    },
    /// A large zip up, over to a worker and back, with the most memory each program held
    LargeFile {
        /// Size of the file in the zip
        #[arg(long, default_value_t = 2048)]
        size_mib: u32,
        /// Fail when coordinator or worker held more than this
        #[arg(long, default_value_t = 200)]
        memory_mib_max: u64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    drop(rustls::crypto::ring::default_provider().install_default());
    let done = match Cli::parse().command {
        Command::Latency { jobs } => latency::run(jobs).await,
        Command::Throughput { jobs, slots } => throughput::run(jobs, slots).await,
        Command::Writes { requests, at_once } => writes::run(requests, at_once).await,
        Command::LargeFile { size_mib, memory_mib_max } => {
            large_file::run(size_mib, memory_mib_max).await
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            figures::complain(&error);
            ExitCode::FAILURE
        }
    }
}
