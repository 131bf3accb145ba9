//! `lull whoami`: which coordinator, which token, which role.

use std::process::ExitCode;

use lull_shared::time::{Clock as _, SystemClock};

use crate::{
    config,
    output::{Output, clean},
    table::span,
};

const HELP: &str = "\
Example:
  lull whoami";

/// Show who you are signed in as, and where
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {}

pub(super) async fn run(_args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let who = client.whoami().await?;
    if output.json {
        output.value(&who)?;
        return Ok(ExitCode::SUCCESS);
    }
    output.line(&format!(
        "{} ({}) on {}, Lull {}",
        clean(&who.name),
        who.role.name(),
        client.address(),
        clean(&who.version)
    ))?;
    if let Some(end) = who.expires_at {
        output.line(&format!("the token ends in {}", span(end.since(SystemClock.now()))))?;
    }
    Ok(ExitCode::SUCCESS)
}
