//! Brings a job's files home.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use lull_shared::{
    archive::{self, Limits},
    client::Client,
    files::Artifact,
    jobs::{Job, JobFilter},
};
use serde::Serialize;

use crate::{
    output::Output,
    progress,
    table::{short, size},
};

/// The artifact that holds the files which `--output` named; it is unpacked.
const OUTPUTS: &str = "outputs.zip";

/// Jobs of an array asked for at once: the most that one reply gives.
const PAGE: u32 = 500;

/// What was brought home, as `--json` says it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "fetched", rename_all = "camelCase")]
pub(crate) struct Fetched {
    /// The artifact.
    name: String,
    /// The folder its files are in, or the file itself.
    path: PathBuf,
    /// Bytes that came over.
    size_bytes: u64,
    /// Number of files.
    files: u64,
}

/// Downloads every artifact into `into`, or into `lull-results/<short id>`, and says where they are.
pub(crate) async fn fetch(
    client: &Client,
    output: &Output,
    job: &Job,
    into: Option<&Path>,
) -> anyhow::Result<()> {
    let default = Path::new("lull-results").join(short(job.job_id));
    for fetched in bring(client, output, job, into.unwrap_or(&default)).await? {
        if !output.json {
            tell(output, fetched.files, fetched.size_bytes, &fetched.path);
        }
    }
    Ok(())
}

/// Brings the files of all jobs of an array home, each into a folder of its number, and says so once.
pub(crate) async fn fetch_array(
    client: &Client,
    output: &Output,
    array: &Job,
    into: Option<&Path>,
) -> anyhow::Result<()> {
    if array.outputs.is_empty() {
        return Ok(());
    }
    let default = Path::new("lull-results").join(short(array.job_id));
    let into = into.unwrap_or(&default);
    let (mut files, mut bytes) = (0, 0);
    let mut filter =
        JobFilter { array_id: Some(array.job_id), limit: Some(PAGE), ..JobFilter::default() };
    loop {
        let page = client.list_jobs(&filter).await?;
        for job in &page.jobs {
            let folder = into.join(job.index.unwrap_or_default().to_string());
            for fetched in bring(client, output, job, &folder).await? {
                files += fetched.files;
                bytes += fetched.size_bytes;
            }
        }
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break;
        }
    }
    if files > 0 && !output.json {
        tell(output, files, bytes, into);
    }
    Ok(())
}

fn tell(output: &Output, files: u64, bytes: u64, path: &Path) {
    let count = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    output.note(&format!("{count} ({}) brought home to {}", size(bytes), path.display()));
}

/// Downloads every artifact of a job; with `--json` says each.
async fn bring(
    client: &Client,
    output: &Output,
    job: &Job,
    into: &Path,
) -> anyhow::Result<Vec<Fetched>> {
    if job.artifacts.is_empty() {
        return Ok(Vec::new());
    }
    fs::create_dir_all(into)
        .with_context(|| format!("could not make the folder {}", into.display()))?;
    let mut all = Vec::new();
    for artifact in &job.artifacts {
        let fetched = fetch_one(client, artifact, into).await?;
        if output.json {
            output.value(&fetched)?;
        }
        all.push(fetched);
    }
    Ok(all)
}

async fn fetch_one(client: &Client, artifact: &Artifact, into: &Path) -> anyhow::Result<Fetched> {
    // In the target folder, so that finished files are moved and not copied.
    let staging = tempfile::Builder::new()
        .prefix(".lull-")
        .tempdir_in(into)
        .with_context(|| format!("could not write into {}", into.display()))?;
    let arrived = staging.path().join("arrived");
    let bar = progress::bytes("fetching");
    let downloaded = client.download_to(artifact.digest, &arrived, progress::moves(&bar)).await;
    bar.finish_and_clear();
    let size_bytes = downloaded?;
    let name = artifact.name.clone();
    if name != OUTPUTS {
        let path = into.join(file_name(&name));
        fs::rename(&arrived, &path)
            .with_context(|| format!("could not write {}", path.display()))?;
        return Ok(Fetched { name, path, size_bytes, files: 1 });
    }
    let target = into.to_owned();
    let files = tokio::task::spawn_blocking(move || -> anyhow::Result<u64> {
        let unpacked = staging.path().join("unpacked");
        fs::create_dir(&unpacked)?;
        let zip = fs::File::open(&arrived)?;
        let summary = archive::extract(zip, &unpacked, &Limits::default())
            .context("could not unpack what the job brought home")?;
        merge(&unpacked, &target)?;
        Ok(summary.files)
    })
    .await??;
    Ok(Fetched { name, path: into.to_owned(), size_bytes, files })
}

/// Moves what is in one folder into another; files of the same name are replaced.
fn merge(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)
                .with_context(|| format!("could not make the folder {}", target.display()))?;
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), &target)
                .with_context(|| format!("could not write {}", target.display()))?;
        }
    }
    Ok(())
}

/// An artifact's name as a file name in one folder, whatever a coordinator calls it.
fn file_name(name: &str) -> String {
    let is_harmless = |c: char| !c.is_control() && !r#"/\:*?"<>|"#.contains(c);
    let name: String = name.chars().map(|c| if is_harmless(c) { c } else { '_' }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "artifact".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_s_name_stays_in_its_folder() {
        assert_eq!(file_name("report.pdf"), "report.pdf");
        assert_eq!(file_name("../../.bashrc"), "_.._.bashrc");
        assert_eq!(file_name(".."), "artifact");
        assert_eq!(file_name("C:\\x\n"), "C__x_");
        assert_eq!(file_name(""), "artifact");
    }

    #[test]
    fn results_join_what_is_in_the_folder() {
        let home = tempfile::tempdir().unwrap();
        let (new, old) = (home.path().join("new"), home.path().join("old"));
        fs::create_dir_all(new.join("out")).unwrap();
        fs::create_dir_all(old.join("out")).unwrap();
        fs::write(new.join("out/a"), "second").unwrap();
        fs::write(old.join("out/a"), "first").unwrap();
        fs::write(old.join("out/b"), "kept").unwrap();
        merge(&new, &old).unwrap();
        assert_eq!(fs::read_to_string(old.join("out/a")).unwrap(), "second");
        assert_eq!(fs::read_to_string(old.join("out/b")).unwrap(), "kept");
    }
}
