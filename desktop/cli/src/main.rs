//! Entry point of `lull`: reads the command line, runs one command, maps its end to an exit code.

mod cli;
mod commands;
mod config;
mod follow;
mod output;
mod progress;
mod results;
mod submission;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli::Cli, output::Output};

fn main() -> ExitCode {
    // Fails only where another provider was installed before, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = Cli::parse();
    let output = Output::new(cli.json, config::colours_refused());
    let failure_code = cli.command.failure_code();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(commands::run(cli.command, &output)));
    match ended {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            failure_code
        }
    }
}
