//! Brings the files that a job was asked for into one zip.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use cap_std::{ambient_authority, fs::Dir};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use lull_shared::{
    archive::{self, ArchiveError, Packed},
    jobs::FailureKind,
};
use tokio::task;

use super::{RunEnding, RunOutcome, RunSpec, WORK, error_chain, folder::kind_of};

/// The zip's name in the attempt's folder.
const ZIP: &str = "outputs.zip";

/// The zip of the outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Where it is: `outputs.zip` in the attempt's folder.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How many files are in it.
    pub files: u64,
}

/// The patterns of the files to bring, and which of them matched something.
pub(super) struct Patterns {
    texts: Vec<String>,
    set: GlobSet,
    used: Vec<AtomicBool>,
}

impl Patterns {
    /// Reads the patterns, or says what is wrong with one.
    pub(super) fn new(texts: &[String]) -> Result<Self, String> {
        let mut set = GlobSetBuilder::new();
        for text in texts {
            let relative = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
            let leaves = relative.starts_with('/') || relative.split('/').any(|name| name == "..");
            if leaves || relative.is_empty() {
                return Err(format!(
                    "the output pattern {text:?} does not stay in the job's folder"
                ));
            }
            let glob = GlobBuilder::new(relative).literal_separator(true).build();
            set.add(
                glob.map_err(|error| format!("the output pattern {text:?}: {}", error.kind()))?,
            );
        }
        let set = set.build().map_err(|error| format!("the output patterns: {}", error.kind()))?;
        let used = texts.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self { texts: texts.to_vec(), set, used })
    }

    /// Whether a file is wanted, by its own path or because a folder above it is.
    fn select(&self, path: &str) -> bool {
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        let mut wanted = false;
        for part in folders.chain([path]) {
            for index in self.set.matches(part) {
                wanted = true;
                self.used[index].store(true, Ordering::Relaxed);
            }
        }
        wanted
    }

    fn unused(&self) -> impl Iterator<Item = &str> {
        let used = self.used.iter().map(|used| used.load(Ordering::Relaxed));
        self.texts.iter().zip(used).filter(|(_, used)| !used).map(|(text, _)| text.as_str())
    }
}

/// Packs the outputs and adds them to the outcome. When the lines succeeded, outputs that break a rule fail the
/// attempt; when a line failed already, that stays the reason.
pub(super) async fn bring(patterns: Patterns, spec: &RunSpec, outcome: &mut RunOutcome) {
    let folder = spec.folder.clone();
    let limits = spec.limits;
    let packed = task::spawn_blocking(move || {
        let path = folder.join(ZIP);
        let packed = pack(&folder.join(WORK), &path, &limits, &patterns);
        if !packed.as_ref().is_ok_and(|packed| packed.summary.files > 0) {
            // Half a zip is of no use, and one without files neither.
            let _ = fs::remove_file(&path);
        }
        (packed, path, patterns)
    });
    let (packed, path, patterns) = match packed.await {
        Ok(result) => result,
        Err(error) => {
            let message = format!("could not pack the outputs: {error}");
            outcome.ending = RunEnding::Failed { kind: FailureKind::Internal, message };
            return;
        }
    };
    match packed {
        Ok(packed) => {
            let Packed { size_bytes, summary, .. } = packed;
            let files = summary.files;
            outcome.outputs = (files > 0).then_some(Outputs { path, size_bytes, files });
            let unused =
                patterns.unused().map(|text| format!("no file matched the output {text:?}"));
            outcome.notes.extend(unused);
        }
        Err(error) => {
            let kind = match &error {
                ArchiveError::Refused(_) => FailureKind::OutputsRefused,
                ArchiveError::Io { source, .. } => kind_of(source),
            };
            let message = format!("the outputs: {}", error_chain(&error));
            match outcome.ending {
                RunEnding::Exited { exit_code: 0, .. } => {
                    outcome.ending = RunEnding::Failed { kind, message };
                }
                RunEnding::Exited { .. } | RunEnding::Killed(_) | RunEnding::Failed { .. } => {
                    outcome.notes.push(message);
                }
            }
        }
    }
}

fn pack(
    work: &std::path::Path,
    zip: &std::path::Path,
    limits: &archive::Limits,
    patterns: &Patterns,
) -> Result<Packed, ArchiveError> {
    let could_not = |act: &str| {
        let act = act.to_owned();
        move |source: io::Error| ArchiveError::Io { act, source }
    };
    let work = Dir::open_ambient_dir(work, ambient_authority())
        .map_err(could_not("open the job's folder"))?;
    let mut options = fs::File::options();
    options.read(true).write(true).create_new(true);
    let mut file = options.open(zip).map_err(could_not("make the zip"))?;
    let packed = archive::pack_selected(&work, &mut file, limits, &|path| patterns.select(path))?;
    file.sync_all().map_err(could_not("write the zip"))?;
    Ok(packed)
}
