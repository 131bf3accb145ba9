//! `lull-bench`: prints what Lull costs on this machine, next to the bare thing in the same run.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use lull_bench::torture::Plan;

#[cfg(target_os = "linux")]
mod cut_off;
mod exec;
mod figures;
mod large_file;
mod latency;
mod load;
mod tortured;
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
    /// Jobs a second through one worker, with and without its sandbox, next to `xargs` running the same
    Exec {
        /// How many no-op jobs
        #[arg(long, default_value_t = 5000)]
        jobs: u32,
        /// How many jobs of 100 ms
        #[arg(long, default_value_t = 200)]
        short_jobs: u32,
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
    /// Requests with an empty and a full queue, lifecycles with simulated workers, workers that wait; next to a bare handler
    Load {
        /// Jobs that wait while the requests are measured, growing
        #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 1_000_000])]
        stored: Vec<u32>,
        /// How many requests of each kind, one after the other, and again many at once
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
        requests: u32,
        /// How many requests at once, and simulated workers
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
        at_once: u16,
        /// How many whole lifecycles
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
        lifecycles: u32,
        /// How many workers wait for a job
        #[arg(long, default_value_t = 10_000)]
        waiting: u32,
    },
    /// Kills, stops and cuts off a pool at random, and checks that every accepted job ran to its one end
    Torture {
        /// How many jobs
        #[arg(long, default_value_t = 1000)]
        jobs: u32,
        /// How many workers
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        workers: u32,
        /// How often the coordinator is killed
        #[arg(long, default_value_t = 10)]
        coordinator_kills: u32,
        /// How often a worker is killed
        #[arg(long, default_value_t = 30)]
        worker_kills: u32,
        /// How often a worker is stopped until its leases are over
        #[arg(long, default_value_t = 3)]
        stops: u32,
        /// How often a simulated worker sleeps over its lease and delivers all the same
        #[arg(long, default_value_t = 3)]
        sleepers: u32,
        /// The lease, in seconds
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(3..))]
        lease_secs: u64,
        /// What chance begins with [default: another one each time]
        #[arg(long)]
        seed: Option<u64>,
        /// Another coordinator program than the one beside this program
        #[arg(long, value_name = "PROGRAM")]
        coordinator: Option<PathBuf>,
        /// Succeed only when a fault was found: for a coordinator that has one built in
        #[arg(long)]
        expect_faults: bool,
    },
    /// Cuts the power of the coordinator's disk at random, and checks that what it acknowledged is there; needs root
    #[cfg(target_os = "linux")]
    PowerCut {
        /// How often
        #[arg(long, default_value_t = 10)]
        cuts: u32,
        /// What chance begins with [default: another one each time]
        #[arg(long)]
        seed: Option<u64>,
        /// Another coordinator program than the one beside this program
        #[arg(long, value_name = "PROGRAM")]
        coordinator: Option<PathBuf>,
        /// Succeed only when something was lost: for a coordinator that does not wait for the disk
        #[arg(long)]
        expect_faults: bool,
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
        Command::Exec { jobs, short_jobs, slots } => exec::run(jobs, short_jobs, slots).await,
        Command::Writes { requests, at_once } => writes::run(requests, at_once).await,
        Command::Load { stored, requests, at_once, lifecycles, waiting } => {
            let at_once = at_once.into();
            load::run(&load::Plan { stored, requests, at_once, lifecycles, waiting }).await
        }
        Command::Torture {
            jobs,
            workers,
            coordinator_kills,
            worker_kills,
            stops,
            sleepers,
            lease_secs,
            seed,
            coordinator,
            expect_faults,
        } => {
            let plan = Plan {
                jobs,
                workers,
                coordinator_kills,
                worker_kills,
                stops,
                sleepers,
                lease: Duration::from_secs(lease_secs),
                seed: seed.unwrap_or_else(|| fastrand::u64(..)),
                coordinator,
            };
            tortured::run(&plan, expect_faults).await
        }
        #[cfg(target_os = "linux")]
        Command::PowerCut { cuts, seed, coordinator, expect_faults } => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(..));
            let plan = lull_bench::power_cut::Plan { cuts, seed, coordinator };
            cut_off::run(&plan, expect_faults).await
        }
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
