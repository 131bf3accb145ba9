//! How attempts ended, kept on disk until the coordinator has it: `spool/<job>.<attempt>.json`, and `.zip` for the
//! files to bring home.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use lull_shared::{
    jobs::{FailureKind, LeaseKey, OutputPart},
    output::Stream,
};
use serde::{Deserialize, Serialize};

/// One attempt's end, as the coordinator is to hear it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Whose.
    pub(crate) key: LeaseKey,
    /// How it ended.
    pub(crate) end: End,
    /// Whether there is a zip to bring home.
    pub(crate) has_outputs: bool,
    /// Output that the coordinator may not have yet, in order.
    pub(crate) unsent: Vec<OutputPart>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum End {
    /// The lines ran, until the last or until one failed.
    Exited { exit_code: i32, error_message: Option<String> },
    /// Anything that is not the command's own doing.
    Failed { kind: FailureKind, message: String },
}

impl Report {
    /// A report of a failure, with nothing else to bring.
    pub(crate) const fn failed(key: LeaseKey, kind: FailureKind, message: String) -> Self {
        Self { key, end: End::Failed { kind, message }, has_outputs: false, unsent: Vec::new() }
    }
}

/// Output that was not sent, as it travels.
pub(crate) fn part(stream: Stream, offset: u64, bytes: &Bytes) -> OutputPart {
    OutputPart { stream, offset, data: STANDARD.encode(bytes) }
}

/// The bytes of such a part. What this program wrote can be read; damaged text is no output at all.
pub(crate) fn part_bytes(part: &OutputPart) -> Bytes {
    STANDARD.decode(&part.data).unwrap_or_default().into()
}

/// Names an attempt in the data folder.
pub(crate) fn file_stem(key: LeaseKey) -> String {
    format!("{}.{}", key.job_id, key.attempt)
}

/// Reads what [`file_stem`] wrote.
pub(crate) fn parse_stem(stem: &str) -> Option<LeaseKey> {
    let (job_id, attempt) = stem.split_once('.')?;
    Some(LeaseKey { job_id: job_id.parse().ok()?, attempt: attempt.parse().ok()? })
}

/// The folder of reports.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

impl Spool {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the zip of an attempt's outputs is kept.
    pub(crate) fn zip_path(&self, key: LeaseKey) -> PathBuf {
        self.folder.join(format!("{}.zip", file_stem(key)))
    }

    fn report_path(&self, key: LeaseKey) -> PathBuf {
        self.folder.join(format!("{}.json", file_stem(key)))
    }

    /// Keeps a report, and moves the zip in with it. It survives the end of this process when this returns, and a
    /// power cut after [`Spool::sync`].
    pub(crate) fn write(&self, report: &Report, zip: Option<&Path>) -> io::Result<()> {
        if let Some(zip) = zip {
            fs::rename(zip, self.zip_path(report.key))?;
        }
        let path = self.report_path(report.key);
        let unfinished = path.with_extension("json.new");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(report)?)?;
        fs::rename(unfinished, path)
    }

    /// Returns when the disk holds the report.
    pub(crate) fn sync(&self, report: &Report) -> io::Result<()> {
        if report.has_outputs {
            open_to_sync(&self.zip_path(report.key))?.sync_all()?;
        }
        open_to_sync(&self.report_path(report.key))?.sync_all()?;
        // The name is kept by the folder, which only Unix can be told to write out.
        #[cfg(unix)]
        File::open(&self.folder)?.sync_all()?;
        Ok(())
    }

    /// The coordinator has it, or does not want it.
    pub(crate) fn remove(&self, key: LeaseKey) {
        for path in [self.report_path(key), self.zip_path(key)] {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(job.id = %key.job_id, error = %error, "spooled report was not removed");
            }
        }
    }

    /// What an earlier process did not get rid of. Unfinished files are removed.
    pub(crate) fn load(&self) -> io::Result<Vec<Report>> {
        let mut reports = Vec::new();
        let mut zips = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => match read(&path) {
                    Ok(report) => reports.push(report),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), error = %error, "spooled report is damaged");
                        fs::remove_file(&path)?;
                    }
                },
                Some("zip") => zips.push(path),
                Some(_) | None => fs::remove_file(&path)?,
            }
        }
        let wanted = |zip: &PathBuf| {
            reports.iter().any(|report| report.has_outputs && self.zip_path(report.key) == *zip)
        };
        for zip in zips.iter().filter(|zip| !wanted(zip)) {
            fs::remove_file(zip)?;
        }
        Ok(reports)
    }
}

fn read(path: &Path) -> io::Result<Report> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Windows writes out only what was opened for writing.
fn open_to_sync(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use lull_shared::ids::JobId;

    use super::*;

    #[test]
    fn a_report_and_its_zip_survive_and_strays_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("spool"));
        fs::create_dir(&spool.folder).unwrap();
        let key = LeaseKey { job_id: JobId::generate(), attempt: 3 };
        let report = Report {
            key,
            end: End::Exited { exit_code: 2, error_message: Some("line 1 failed".to_owned()) },
            has_outputs: true,
            unsent: vec![part(Stream::Stderr, 70, &Bytes::from_static(b"\xffrest"))],
        };
        let zip = folder.path().join("outputs.zip");
        fs::write(&zip, b"zip").unwrap();
        spool.write(&report, Some(&zip)).unwrap();
        spool.sync(&report).unwrap();
        for stray in ["x.json.new", "y.zip", "z.json"] {
            fs::write(spool.folder.join(stray), b"{").unwrap();
        }

        let loaded = spool.load().unwrap();
        assert_eq!(loaded, [report]);
        assert_eq!(part_bytes(&loaded[0].unsent[0]), &b"\xffrest"[..]);
        assert_eq!(fs::read(spool.zip_path(key)).unwrap(), b"zip");
        assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 2);

        spool.remove(key);
        assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 0);
    }

    #[test]
    fn only_the_name_of_an_attempt_is_one() {
        let key = LeaseKey { job_id: JobId::generate(), attempt: 12 };
        assert_eq!(parse_stem(&file_stem(key)), Some(key));
        assert_eq!(parse_stem(&key.job_id.to_string()), None);
        assert_eq!(parse_stem("../x.1"), None);
    }
}
