//! Entry point of the headless worker: reads the command line and hands over to the library.

use std::process::ExitCode;

use clap::Parser as _;
use lull_worker::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(&Cli::parse())
}
