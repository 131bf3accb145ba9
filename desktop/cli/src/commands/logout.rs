//! `lull logout`: forgets what `lull login` stored.

use std::process::ExitCode;

use serde_json::json;

use crate::{config, output::Output};

const HELP: &str = "\
The token itself stays valid until it expires.

Example:
  lull logout";

/// Forget the stored address, CA and token
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {}

pub(super) fn run(_args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    let was_signed_in = config::forget()?;
    if output.json {
        output.value(&json!({ "signedOut": was_signed_in }))?;
    } else {
        output.line(if was_signed_in { "signed out" } else { "nobody was signed in" })?;
    }
    Ok(ExitCode::SUCCESS)
}
