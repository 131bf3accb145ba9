//! `lull explain`: why a job waits.

use std::process::ExitCode;

use super::find_job;
use crate::{
    config,
    output::{Output, clean},
};

const HELP: &str = "\
Examples:
  lull explain 4f2a91c0
  lull explain --json 4f2a91c0 | jq .reason";

/// Say why a job waits: what it needs, which PCs have it, which jobs come first
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The job: its id, or the last digits of it
    job: String,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let client = config::client()?;
    let explanation = client.explain_job(find_job(&client, &args.job).await?).await?;
    if output.json {
        output.value(&explanation)?;
    } else {
        for sentence in &explanation.sentences {
            output.line(&clean(sentence))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
