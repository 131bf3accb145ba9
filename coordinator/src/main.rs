//! Entry point: reads the command line, starts logging, hands over to the library, maps the end to an exit code.

use std::{process::ExitCode, sync::Arc};

use clap::Parser as _;
use lull_coordinator::{
    Listeners, admin,
    config::{Cli, Command, Config},
    install_crypto, serve, signals, telemetry,
};
use lull_shared::time::SystemClock;
use tokio::runtime;

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::init(cli.flags.log);
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "coordinator stopped");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    install_crypto();
    let config = Config::load(&cli.flags)?;
    let clock = Arc::new(SystemClock);
    runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        match &cli.command {
            Some(Command::JoinCode(wanted)) => admin::join_code(&config, clock, wanted).await,
            Some(Command::Token(wanted)) => admin::token(&config, clock, wanted).await,
            Some(Command::Backup(wanted)) => admin::backup(&config, wanted).await,
            None => {
                let listeners = Listeners::bind(&config).await?;
                serve(config, clock, listeners, signals::shutdown()?).await
            }
        }
    })
}
