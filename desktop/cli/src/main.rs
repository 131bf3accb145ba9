//! Entry point of `lull`: reads the command line, runs one command, maps its end to an exit code.

mod array;
mod cli;
mod commands;
mod config;
mod follow;
mod output;
mod progress;
mod results;
mod submission;
mod table;
mod waiting;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;

use crate::{cli::Cli, output::Output};

fn main() -> ExitCode {
    // Fails only where another provider was installed before, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = Cli::parse();
    let output = Output::new(cli.json, config::colours_refused());
    let failure_code = cli.command.failure_code();
    match run(cli, &output) {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::from(output::CLOSED_PIPE),
        Err(error) => {
            output.failure(&error);
            failure_code
        }
    }
}

fn run(cli: Cli, output: &Output) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(commands::run(cli.command, output));
    runtime.shutdown_timeout(Duration::from_secs(1)); // A large folder may still be being packed.
    ended
}
