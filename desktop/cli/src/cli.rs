//! The command line: which commands there are and what all of them share.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    cancel, demo, download, events, explain, hold, jobs, login, logout, output, release, resubmit,
    run, status, submit, whoami, workers,
};

const ABOUT: &str = "Runs commands on the idle PCs of your pool";
const EXAMPLES: &str = "\
Examples:
  lull login --url https://pool.example:7700 --ca ca.pem
  lull run --dir my-project --output 'out/*' -- 'make' 'make test'
  lull jobs
  lull output -f 4f2a91c0
  lull explain 4f2a91c0
  lull demo

Instead of `lull login`, LULL_URL, LULL_TOKEN and LULL_CA (the path of the coordinator's ca.pem) may be set.
A job is named by its id or by the last digits of it, as `lull jobs` shows them; a job of an array by the array's and its
number: 4f2a91c0/17.";

/// The command line of `lull`.
#[derive(Debug, Parser)]
#[command(name = "lull", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// Print JSON, and nothing else, on standard output: one value, or one value a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Args>),
    Submit(Box<submit::Args>),
    Status(status::Args),
    Output(output::Args),
    Download(download::Args),
    Explain(explain::Args),
    Jobs(jobs::Args),
    Workers(workers::Args),
    Events(events::Args),
    Cancel(cancel::Args),
    Hold(hold::Args),
    Release(release::Args),
    Resubmit(resubmit::Args),
    Login(login::Args),
    Logout(logout::Args),
    Whoami(whoami::Args),
    Demo(demo::Args),
}

impl Command {
    /// The exit code when the command fails. `run` keeps clear of the codes of what it runs, as a shell does.
    pub(crate) fn failure_code(&self) -> ExitCode {
        if matches!(self, Self::Run(_)) {
            ExitCode::from(run::COULD_NOT_RUN)
        } else {
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "lull {} has no examples", command.get_name());
        }
    }

    #[test]
    fn every_command_and_option_is_in_the_documents() {
        let quick = include_str!("../../../docs/quick-reference.md");
        let jobs = include_str!("../../../docs/jobs.md");
        let mut missing = Vec::new();
        let mut check = |document: &str, words: String| {
            let ends =
                |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            if !document.split(&words).skip(1).any(ends) {
                missing.push(words);
            }
        };
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            check(quick, format!("lull {name}"));
            for part in command.get_subcommands() {
                check(quick, format!("lull {name} {}", part.get_name()));
            }
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                check(quick, format!("--{option}"));
                if name == "submit" {
                    check(jobs, format!("--{option}"));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }

    #[test]
    fn json_may_stand_before_and_after_the_command() {
        for line in [["lull", "--json", "jobs"], ["lull", "jobs", "--json"]] {
            assert!(Cli::parse_from(line).json, "{line:?}");
        }
    }

    #[test]
    fn a_token_is_no_argument() {
        assert!(Cli::try_parse_from(["lull", "login", "--token", "lullt_x"]).is_err());
    }

    #[test]
    fn what_stands_after_the_dashes_is_never_read_as_an_option() {
        let cli = Cli::parse_from(["lull", "run", "--dir", "d", "--", "ls --json", "--raw"]);
        assert!(!cli.json);
    }
}
