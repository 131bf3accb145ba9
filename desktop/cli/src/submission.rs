//! From a command line to an accepted job: packs and uploads the input, then submits.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use lull_shared::{
    archive,
    client::{Client, hash_file},
    ids::Digest,
    jobs::{CreateJob, Job, OnWorkerLost, Requirements},
    workers::SandboxLevel,
};

use crate::{output::Output, progress, table::size};

/// What `run` and `submit` share.
#[derive(Debug, clap::Args)]
pub(crate) struct Submission {
    /// Folder to hand over; it is the command's working folder
    #[arg(long, value_name = "DIR", conflicts_with = "zip")]
    pub(crate) dir: Option<PathBuf>,

    /// Zip to hand over instead of a folder
    #[arg(long, value_name = "FILE")]
    pub(crate) zip: Option<PathBuf>,

    /// Files to bring home, for example 'out/**' (repeatable)
    #[arg(long = "output", value_name = "GLOB")]
    pub(crate) outputs: Vec<String>,

    /// Environment variable of the command (repeatable)
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = read_pair)]
    pub(crate) env: Vec<(String, String)>,

    /// Name of the job, for people [default: its first line]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Least isolation the PC must offer
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::L2)]
    pub(crate) min_sandbox: Level,

    /// What happens when the PC falls silent: run it again elsewhere, or fail
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Lost::Retry)]
    pub(crate) on_worker_lost: Lost,

    /// Take what follows `--` as one command with its arguments, instead of one line each
    #[arg(long)]
    pub(crate) argv: bool,

    /// The command: each argument is one line, run in order until one fails
    #[arg(last = true, required = true, value_name = "LINE")]
    pub(crate) lines: Vec<String>,
}

/// Least isolation, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// A plain process tree
    L0,
    /// An account of its own
    L1,
    /// Nothing of the owner's in reach
    L2,
    /// The same, with limits and nothing else in sight
    L3,
}

/// What happens when the PC falls silent, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lost {
    /// Run it again on another PC
    Retry,
    /// Never run it twice
    Fail,
}

impl Submission {
    /// Packs and uploads what there is to hand over, then submits.
    pub(crate) async fn submit(&self, client: &Client, output: &Output) -> anyhow::Result<Job> {
        let mut job = self.request()?;
        if let Some(dir) = &self.dir {
            let packed = pack(dir.clone()).await?;
            let (digest, size_bytes) = (packed.digest, packed.size_bytes);
            upload(client, output, packed.file.path(), digest, size_bytes).await?;
            job.file_digest = Some(digest);
            let name = dir.canonicalize().ok();
            let name = name.as_deref().unwrap_or(dir).file_name();
            job.filename = name.map(|name| format!("{}.zip", name.to_string_lossy()));
        } else if let Some(zip) = &self.zip {
            let bar = progress::bytes("reading");
            let hashed = hash_file(zip, progress::moves(&bar)).await;
            bar.finish_and_clear();
            let (digest, size_bytes) = hashed?;
            upload(client, output, zip, digest, size_bytes).await?;
            job.file_digest = Some(digest);
            job.filename = zip.file_name().map(|name| name.to_string_lossy().into_owned());
        }
        Ok(client.create_job(&job).await?)
    }

    /// The job without its file.
    fn request(&self) -> anyhow::Result<CreateJob> {
        let mut env = BTreeMap::new();
        for (name, value) in &self.env {
            if env.insert(name.clone(), value.clone()).is_some() {
                bail!("--env names {name} twice");
            }
        }
        Ok(CreateJob {
            command: command(&self.lines, self.argv)?,
            name: self.name.clone(),
            env,
            outputs: self.outputs.clone(),
            requirements: Requirements {
                min_sandbox: match self.min_sandbox {
                    Level::L0 => SandboxLevel::L0,
                    Level::L1 => SandboxLevel::L1,
                    Level::L2 => SandboxLevel::L2,
                    Level::L3 => SandboxLevel::L3,
                },
                ..Requirements::default()
            },
            on_worker_lost: match self.on_worker_lost {
                Lost::Retry => OnWorkerLost::Retry,
                Lost::Fail => OnWorkerLost::Fail,
            },
            ..CreateJob::default()
        })
    }
}

/// A folder as a zip that goes away with this.
struct PackedFolder {
    file: tempfile::NamedTempFile,
    digest: Digest,
    size_bytes: u64,
}

async fn pack(dir: PathBuf) -> anyhow::Result<PackedFolder> {
    let bar = progress::bytes("packing");
    let moving = bar.clone();
    // Owned here and not by the thread that fills it, so that it is gone also after Ctrl-C.
    let file = tempfile::Builder::new().prefix("lull-").suffix(".zip").tempfile()?;
    let mut filled = fs::File::options().read(true).write(true).open(file.path())?;
    let packed = tokio::task::spawn_blocking(move || {
        archive::pack(&dir, &mut filled, &mut |progress| {
            moving.set_length(progress.total_bytes);
            moving.set_position(progress.done_bytes);
        })
        .with_context(|| format!("could not pack the folder {}", dir.display()))
    })
    .await?;
    bar.finish_and_clear();
    let packed = packed?;
    Ok(PackedFolder { file, digest: packed.digest, size_bytes: packed.size_bytes })
}

async fn upload(
    client: &Client,
    output: &Output,
    path: &std::path::Path,
    digest: Digest,
    size_bytes: u64,
) -> anyhow::Result<()> {
    if client.has_file(digest).await?.is_some() {
        if output.is_watched() {
            output.note(&format!("{} are already there: nothing to upload", size(size_bytes)));
        }
        return Ok(());
    }
    let bar = progress::bytes("uploading");
    let stored = client.upload_file(path, digest, progress::moves(&bar)).await;
    bar.finish_and_clear();
    stored?;
    Ok(())
}

fn read_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// The command's text: one line for each argument, or all of them as one.
fn command(arguments: &[String], argv: bool) -> anyhow::Result<String> {
    let joined = arguments.iter().map(|argument| quote(argument)).collect::<Vec<_>>().join(" ");
    if argv {
        return Ok(joined);
    }
    let one_word = |text: &String| !text.contains(char::is_whitespace);
    if let [first, rest @ ..] = arguments
        && !rest.is_empty()
        && one_word(first)
        && (rest.iter().all(one_word) || rest.iter().any(|argument| argument.starts_with('-')))
    {
        let plain = arguments.join(" ");
        bail!(
            "each argument after `--` is one line, and these look like one command: \
             write -- '{plain}', or add --argv to pass them on as they are"
        );
    }
    Ok(arguments.join("\n"))
}

/// Quotes an argument for a POSIX shell, where it needs to be.
fn quote(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let error = command(&lines, false).unwrap_err().to_string();
        assert!(error.contains("'python3 x.py'") && error.contains("--argv"), "{error}");
    }

    #[test]
    fn argv_keeps_every_argument_as_it_is() {
        let arguments = ["printf".to_owned(), "%s\n".to_owned(), "it's".to_owned(), String::new()];
        assert_eq!(command(&arguments, true).unwrap(), "printf '%s\n' 'it'\\''s' ''");
    }

    #[test]
    fn a_variable_needs_a_name() {
        assert_eq!(read_pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(read_pair("=b").is_err());
        assert!(read_pair("A").is_err());
    }

    #[track_caller]
    fn check(arguments: &[&str], expected: Option<&str>) {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(command(&arguments, false).ok().as_deref(), expected, "{arguments:?}");
    }
}
