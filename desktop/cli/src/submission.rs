//! From a command line to an accepted job: reads the options, hands over the input, submits.

mod upload;
mod values;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::bail;
use clap::ValueEnum;
use lull_shared::{
    client::Client,
    ids::JobId,
    jobs::{
        self, CreateJob, Job, Network, OnError, OnOwnerReturn, OnWorkerLost, RETRIES_MAX,
        Requirements,
    },
    workers::SandboxLevel,
};

use self::values::{read_bytes, read_items, read_pair, read_secs};
use crate::{commands::find_job, output::Output};

const COMMAND: &str = "The command";
const FILES: &str = "Files";
const TURN: &str = "Its turn";
const PC: &str = "What the PC must be and have";
const TROUBLE: &str = "When something goes wrong";
const ARRAY: &str = "Many jobs at once";

/// What `run` and `submit` share.
#[derive(Debug, clap::Args)]
pub(crate) struct Submission {
    /// Name of the job, for people [default: its first line]
    #[arg(long, value_name = "NAME", help_heading = COMMAND)]
    name: Option<String>,

    /// What reads the lines; `none` takes what follows `--` as one program with its arguments, exactly as given
    /// [default: the PC's own: sh, or cmd on Windows]
    #[arg(long, value_name = "SHELL", value_enum, help_heading = COMMAND, hide_possible_values = true)]
    shell: Option<Shell>,

    /// Environment variable of the command (repeatable)
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = read_pair, help_heading = COMMAND)]
    env: Vec<(String, String)>,

    /// Submit under this key: sent again with the same key, it stays one job
    #[arg(long, value_name = "KEY", help_heading = COMMAND)]
    key: Option<String>,

    /// Folder to hand over; it is the command's working folder
    #[arg(long, value_name = "DIR", conflicts_with = "zip", help_heading = FILES)]
    dir: Option<PathBuf>,

    /// Zip to hand over instead of a folder
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    zip: Option<PathBuf>,

    /// Files to bring home, for example 'out/**' (repeatable)
    #[arg(long = "output", value_name = "GLOB", help_heading = FILES)]
    outputs: Vec<String>,

    /// Higher goes first, whoever submitted it: -100 to 100
    #[arg(
        long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, help_heading = TURN,
        value_parser = clap::value_parser!(i32).range(-100..=100),
    )]
    priority: i32,

    /// Let it wait until `lull release`
    #[arg(long, help_heading = TURN)]
    hold: bool,

    /// Run it when this job completed; it fails when that one does not (repeatable)
    #[arg(long, value_name = "JOB", help_heading = TURN)]
    after: Vec<String>,

    /// Fail when no PC took it for this long, for example 1h
    #[arg(long, value_name = "TIME", value_parser = read_secs, help_heading = TURN)]
    max_queue: Option<u32>,

    /// System: linux, windows, macos, or unix for both but Windows
    #[arg(long, value_name = "SYSTEM", value_parser = ["linux", "windows", "macos", "unix"], hide_possible_values = true, help_heading = PC)]
    os: Option<String>,

    /// Processor: x86_64, aarch64, …
    #[arg(long, value_name = "ARCH", help_heading = PC)]
    arch: Option<String>,

    /// At least this many logical processors
    #[arg(long, value_name = "N", help_heading = PC)]
    min_cpus: Option<u32>,

    /// At least this much memory, for example 16GiB
    #[arg(long, value_name = "SIZE", value_parser = read_bytes, help_heading = PC)]
    min_memory: Option<u64>,

    /// A label its owner gave it (repeatable: all of them)
    #[arg(long = "label", value_name = "LABEL", help_heading = PC)]
    labels: Vec<String>,

    /// Least isolation: l0 a plain process, l1 an account of its own, l2 nothing of the owner's in reach, l3 the same
    /// with limits and nothing else in sight
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::L2, hide_possible_values = true, help_heading = PC)]
    min_sandbox: Level,

    /// What the command may reach: none, or internet where the PC's owner grants it
    #[arg(long, value_name = "REACH", value_enum, default_value_t = Reach::None, hide_possible_values = true, help_heading = PC)]
    network: Reach,

    /// What follows a line that failed: stop, or continue with the next
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Failed::Stop, hide_possible_values = true, help_heading = TROUBLE)]
    on_error: Failed,

    /// How often to try again when the command itself fails, after growing pauses: up to 100
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = TROUBLE, value_parser = clap::value_parser!(u32).range(..=i64::from(RETRIES_MAX)))]
    retries: u32,

    /// End the command after this time, for example 10m
    #[arg(long, value_name = "TIME", value_parser = read_secs, help_heading = TROUBLE)]
    timeout: Option<u32>,

    /// When the PC falls silent: retry on another one, or fail, for what must never run twice
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Lost::Retry, hide_possible_values = true, help_heading = TROUBLE)]
    on_worker_lost: Lost,

    /// When the PC's owner comes back: pause and move only if they stay, or move at once
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Back::Pause, hide_possible_values = true, help_heading = TROUBLE)]
    on_owner_return: Back,

    /// An array of N jobs; each finds its number, from 0 on, in LULL_INDEX
    #[arg(long, value_name = "N", conflicts_with = "items_from", help_heading = ARRAY)]
    count: Option<u32>,

    /// An array with a job for each line of the file (- is standard input); each finds its line in LULL_ITEM
    #[arg(long, value_name = "FILE", help_heading = ARRAY)]
    items_from: Option<PathBuf>,

    /// The command: each argument is one line, run in order until one fails
    #[arg(last = true, required = true, value_name = "LINE")]
    lines: Vec<String>,
}

/// What reads the lines, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Sh,
    Cmd,
    Powershell,
    None,
}

/// Least isolation, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    L0,
    L1,
    L2,
    L3,
}

/// What the command may reach, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reach {
    None,
    Internet,
}

/// What follows a line that failed, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Failed {
    Stop,
    Continue,
}

/// What happens when the PC falls silent, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lost {
    Retry,
    Fail,
}

/// What happens when the owner comes back, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Back {
    Pause,
    Move,
}

impl Submission {
    /// Packs and uploads what there is to hand over, then submits.
    pub(crate) async fn submit(&self, client: &Client, output: &Output) -> anyhow::Result<Job> {
        let mut job = self.request()?;
        job.after = self.jobs_before(client).await?;
        let handed_over = match (&self.dir, &self.zip) {
            (Some(dir), _) => Some(upload::hand_over_folder(client, output, dir).await?),
            (None, Some(zip)) => Some(upload::hand_over_zip(client, output, zip).await?),
            (None, None) => None,
        };
        if let Some((digest, filename)) = handed_over {
            job.file_digest = Some(digest);
            job.filename = filename;
        }
        Ok(client.create_job(&job).await?)
    }

    async fn jobs_before(&self, client: &Client) -> anyhow::Result<Vec<JobId>> {
        let mut before = Vec::new();
        for job in &self.after {
            before.push(find_job(client, job).await?);
        }
        Ok(before)
    }

    /// The job without its file and without the jobs it waits for.
    fn request(&self) -> anyhow::Result<CreateJob> {
        let mut env = BTreeMap::new();
        for (name, value) in &self.env {
            if env.insert(name.clone(), value.clone()).is_some() {
                bail!("--env names {name} twice");
            }
        }
        let (command, argv, shell) = match self.shell {
            Some(Shell::None) => (String::new(), self.lines.clone(), None),
            Some(Shell::Sh) => (command(&self.lines)?, Vec::new(), Some(jobs::Shell::Sh)),
            Some(Shell::Cmd) => (command(&self.lines)?, Vec::new(), Some(jobs::Shell::Cmd)),
            Some(Shell::Powershell) => {
                (command(&self.lines)?, Vec::new(), Some(jobs::Shell::Powershell))
            }
            None => (command(&self.lines)?, Vec::new(), None),
        };
        Ok(CreateJob {
            command,
            argv,
            shell,
            name: self.name.clone(),
            env,
            outputs: self.outputs.clone(),
            on_error: match self.on_error {
                Failed::Stop => OnError::Stop,
                Failed::Continue => OnError::Continue,
            },
            priority: self.priority,
            retries: self.retries,
            timeout_secs: self.timeout,
            max_queue_secs: self.max_queue,
            requirements: self.requirements(),
            on_worker_lost: match self.on_worker_lost {
                Lost::Retry => OnWorkerLost::Retry,
                Lost::Fail => OnWorkerLost::Fail,
            },
            on_owner_return: match self.on_owner_return {
                Back::Pause => OnOwnerReturn::Pause,
                Back::Move => OnOwnerReturn::Move,
            },
            hold: self.hold,
            count: self.count,
            items: match &self.items_from {
                Some(path) => read_items(path)?,
                None => Vec::new(),
            },
            idempotency_key: self.key.clone(),
            ..CreateJob::default()
        })
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            os: self.os.clone(),
            arch: self.arch.clone(),
            min_cpus: self.min_cpus.unwrap_or_default(),
            min_memory_bytes: self.min_memory.unwrap_or_default(),
            labels: self.labels.iter().cloned().collect(),
            min_sandbox: match self.min_sandbox {
                Level::L0 => SandboxLevel::L0,
                Level::L1 => SandboxLevel::L1,
                Level::L2 => SandboxLevel::L2,
                Level::L3 => SandboxLevel::L3,
            },
            network: match self.network {
                Reach::None => Network::None,
                Reach::Internet => Network::Internet,
            },
        }
    }
}

/// The command's text: one line for each argument.
fn command(arguments: &[String]) -> anyhow::Result<String> {
    let one_word = |text: &String| !text.contains(char::is_whitespace);
    if let [first, rest @ ..] = arguments
        && !rest.is_empty()
        && one_word(first)
        && (rest.iter().all(one_word) || rest.iter().any(|argument| argument.starts_with('-')))
    {
        let plain = arguments.join(" ");
        bail!(
            "each argument after `--` is one line, and these look like one command: \
             write -- '{plain}', or add --shell none to pass them on as they are"
        );
    }
    Ok(arguments.join("\n"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        submission: Submission,
    }

    fn request(options: &str, lines: &[&str]) -> anyhow::Result<CreateJob> {
        let line = ["lull"].into_iter().chain(options.split_whitespace());
        let line = line.chain(["--"]).chain(lines.iter().copied());
        Line::try_parse_from(line)?.submission.request()
    }

    #[test]
    fn every_option_reaches_the_job() {
        let options = "--name n --shell sh --env A=b --key k --output out/** --priority -7 --hold --max-queue 1h \
                       --os linux --arch x86_64 --min-cpus 4 --min-memory 16GiB --label gpu --label lab.2 \
                       --min-sandbox l3 --network internet --on-error continue --retries 3 --timeout 10m \
                       --on-worker-lost fail --on-owner-return move --count 5";
        let expected = CreateJob {
            command: "echo one".to_owned(),
            argv: Vec::new(),
            shell: Some(jobs::Shell::Sh),
            on_error: OnError::Continue,
            name: Some("n".to_owned()),
            file_digest: None,
            filename: None,
            env: [("A".to_owned(), "b".to_owned())].into(),
            outputs: vec!["out/**".to_owned()],
            priority: -7,
            retries: 3,
            timeout_secs: Some(600),
            max_queue_secs: Some(3600),
            requirements: Requirements {
                os: Some("linux".to_owned()),
                arch: Some("x86_64".to_owned()),
                min_cpus: 4,
                min_memory_bytes: 16 << 30,
                labels: ["gpu".to_owned(), "lab.2".to_owned()].into(),
                min_sandbox: SandboxLevel::L3,
                network: Network::Internet,
            },
            on_worker_lost: OnWorkerLost::Fail,
            on_owner_return: OnOwnerReturn::Move,
            hold: true,
            after: Vec::new(),
            count: Some(5),
            items: Vec::new(),
            idempotency_key: Some("k".to_owned()),
        };
        assert_eq!(request(options, &["echo one"]).unwrap(), expected);
    }

    #[test]
    fn without_options_nothing_is_asked_for() {
        let expected = CreateJob { command: "make".to_owned(), ..CreateJob::default() };
        assert_eq!(request("", &["make"]).unwrap(), expected);
    }

    #[test]
    fn without_a_shell_every_argument_stays_as_it_is() {
        let job = request("--shell none", &["printf", "%s\n", "it's", ""]).unwrap();
        assert_eq!(job.argv, ["printf", "%s\n", "it's", ""]);
        assert_eq!((job.command.as_str(), job.shell), ("", None));
    }

    #[test]
    fn numbers_out_of_range_are_refused_at_once() {
        for options in ["--priority 101", "--retries 101", "--timeout 31d", "--os beos"] {
            assert!(request(options, &["make"]).is_err(), "{options}");
        }
        assert!(request("--count 2 --items-from x", &["make"]).is_err());
        assert!(request("--env A=1 --env A=2", &["make"]).is_err());
    }

    #[test]
    fn each_argument_is_one_line() {
        check(&["make test"], Some("make test"));
        check(&["make"], Some("make"));
        check(&["make", "make test"], Some("make\nmake test"));
        check(&["perl render.pl out", "perl check.pl"], Some("perl render.pl out\nperl check.pl"));
    }

    #[test]
    fn a_command_that_was_not_quoted_is_refused_with_the_quoted_form() {
        check(&["python3", "x.py"], None);
        check(&["python3", "-c", "print(1, 2)"], None);
        let lines = ["python3".to_owned(), "x.py".to_owned()];
        let error = command(&lines).unwrap_err().to_string();
        assert!(error.contains("'python3 x.py'") && error.contains("--shell none"), "{error}");
    }

    #[track_caller]
    fn check(arguments: &[&str], expected: Option<&str>) {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(command(&arguments).ok().as_deref(), expected, "{arguments:?}");
    }
}
