//! Files in and out: what a person chose to hand over, and result files on their way home.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use lull_shared::{
    archive::{self, ArchiveError},
    client::{Client, Progress, hash_file},
    ids::Digest,
    problem::{Problem, ProblemKind},
};
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempPath};

/// What the person may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PickKind {
    /// A folder, which is packed here.
    Folder,
    /// A zip, which goes as it is.
    Zip,
}

/// Something the person chose, as the page knows it: by a number, so that it can name nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Picked {
    /// Its number.
    pub pick_id: String,
    /// Its name without the way there.
    pub name: String,
    /// Its size; of a folder, that of its files.
    pub size_bytes: u64,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Bytes so far.
    pub sent_bytes: u64,
    /// All bytes; 0 when that is not known.
    pub total_bytes: u64,
}

/// A file the coordinator now has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Uploaded {
    /// Its name in the store.
    pub digest: Digest,
    /// Its name for people.
    pub filename: String,
    /// Its size.
    pub size_bytes: u64,
}

/// A zip on this PC, ready to go. A packed folder's is deleted when this is dropped.
#[derive(Debug)]
pub struct Zip {
    /// Its name for people.
    pub filename: String,
    file: ZipFile,
}

#[derive(Debug)]
enum ZipFile {
    Given(PathBuf),
    Packed(TempPath),
}

impl Zip {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.file {
            ZipFile::Given(path) => path,
            ZipFile::Packed(path) => path,
        }
    }
}

/// What the person chose while the app ran.
#[derive(Debug)]
pub struct Picks {
    packing_dir: PathBuf,
    next: AtomicU32,
    chosen: Mutex<HashMap<String, PathBuf>>,
}

impl Picks {
    /// Packs folders in `packing_dir`, where nothing else lives: what an earlier run left there is deleted.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used.
    pub fn open(packing_dir: PathBuf) -> io::Result<Self> {
        match std::fs::remove_dir_all(&packing_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::fs::create_dir_all(&packing_dir)?;
        Ok(Self { packing_dir, next: AtomicU32::new(1), chosen: Mutex::default() })
    }

    /// Takes in what was chosen or dropped.
    ///
    /// # Errors
    ///
    /// `invalid` for what is neither a folder nor a zip.
    pub async fn add(&self, path: PathBuf) -> Result<Picked, Problem> {
        let (path, size) = blocking(move || size_of(&path).map(|size| (path, size))).await?;
        let name = display_name(&path);
        let pick_id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.insert(pick_id.clone(), path);
        Ok(Picked { pick_id, name, size_bytes: size })
    }

    /// The zip of what was chosen; a folder is packed now, as it is now.
    ///
    /// # Errors
    ///
    /// `not_found` for a number that was never given, `archive_refused` for a folder that cannot be packed.
    pub async fn zip(&self, pick_id: &str) -> Result<Zip, Problem> {
        let known =
            self.chosen.lock().unwrap_or_else(PoisonError::into_inner).get(pick_id).cloned();
        let path = known.ok_or_else(|| {
            Problem::new(ProblemKind::NotFound).with_detail("choose the folder or zip again")
        })?;
        if !path.is_dir() {
            return Ok(Zip { filename: display_name(&path), file: ZipFile::Given(path) });
        }
        let packing_dir = self.packing_dir.clone();
        blocking(move || {
            let mut dest = NamedTempFile::new_in(packing_dir).map_err(|error| unusable(&error))?;
            archive::pack(&path, dest.as_file_mut(), &mut |_| {})
                .map_err(|error| cannot_pack(&error))?;
            let filename = format!("{}.zip", display_name(&path));
            Ok(Zip { filename, file: ZipFile::Packed(dest.into_temp_path()) })
        })
        .await
    }
}

/// Hands the zip to the coordinator; says nothing to `progress` when it is there already.
///
/// # Errors
///
/// What the coordinator or the disk says.
pub async fn upload(
    client: &Client,
    zip: &Zip,
    progress: impl Progress,
) -> Result<Uploaded, Problem> {
    let problem = |error: lull_shared::client::ClientError| error.to_problem();
    let (digest, size_bytes) = hash_file(zip.path(), |_, _| {}).await.map_err(problem)?;
    if client.has_file(digest).await.map_err(problem)?.is_none() {
        client.upload_file(zip.path(), digest, progress).await.map_err(problem)?;
    }
    Ok(Uploaded { digest, filename: zip.filename.clone(), size_bytes })
}

/// Brings a result file home under its own name or, where that is taken, a numbered one. Until it is whole
/// it has no name there.
///
/// # Errors
///
/// What the coordinator or the disk says.
pub async fn save(
    client: &Client,
    digest: Digest,
    name: &str,
    folder: &Path,
    progress: impl Progress,
) -> Result<PathBuf, Problem> {
    tokio::fs::create_dir_all(folder).await.map_err(|error| unusable(&error))?;
    let arriving =
        tempfile::Builder::new().prefix(".lull-").tempdir_in(folder).map_err(|e| unusable(&e))?;
    let part = arriving.path().join("part");
    client.download_to(digest, &part, progress).await.map_err(|error| error.to_problem())?;

    let mut part = TempPath::try_from_path(part).map_err(|error| unusable(&error))?;
    for name in free_names(&safe_name(name)) {
        match part.persist_noclobber(folder.join(&name)) {
            Ok(()) => return Ok(folder.join(name)),
            Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => part = taken.path,
            Err(failed) => return Err(unusable(&failed.error)),
        }
    }
    Err(Problem::new(ProblemKind::Conflict).with_detail("the folder is full of files of this name"))
}

/// The name, then the same with numbers: `out.zip`, `out (2).zip`, …
fn free_names(name: &str) -> impl Iterator<Item = String> {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem.to_owned(), format!(".{extension}")),
        Some(_) | None => (name.to_owned(), String::new()),
    };
    (1..10_000).map(move |number| match number {
        1 => format!("{stem}{extension}"),
        number => format!("{stem} ({number}){extension}"),
    })
}

/// A name that stays in its folder and means a file on every system, whatever a coordinator calls it.
fn safe_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|char| match char {
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
            char if char.is_control() || is_reordering(char) => '_',
            char => char,
        })
        .take(200)
        .collect();
    let safe = safe.trim_matches(['.', ' ']);
    let stem = safe.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let numbered = |device: &str| {
        stem.strip_prefix(device).is_some_and(|rest| matches!(rest.as_bytes(), [b'0'..=b'9']))
    };
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL");
    if safe.is_empty() || device || numbered("COM") || numbered("LPT") {
        return format!("result_{safe}");
    }
    safe.to_owned()
}

/// Characters that make a name read as another one, as `photo_gpj.exe` written backwards.
const fn is_reordering(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn size_of(path: &Path) -> Result<u64, Problem> {
    let metadata = std::fs::metadata(path).map_err(|error| unusable(&error))?;
    if metadata.is_dir() {
        return Ok(folder_size(path));
    }
    let is_zip =
        path.extension().and_then(OsStr::to_str).is_some_and(|e| e.eq_ignore_ascii_case("zip"));
    if !metadata.is_file() || !is_zip {
        return Err(Problem::new(ProblemKind::Invalid).with_detail("choose a folder or a zip file"));
    }
    Ok(metadata.len())
}

/// About how large the folder is: links are not followed, what cannot be read counts nothing.
fn folder_size(folder: &Path) -> u64 {
    let mut total = 0;
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else {
                total += metadata.len();
            }
        }
    }
    total
}

fn display_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "folder".to_owned(), |name| name.to_string_lossy().into_owned())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "work on files ended early");
        Err(Problem::new(ProblemKind::Internal))
    })
}

fn unusable(error: &io::Error) -> Problem {
    Problem::new(ProblemKind::Invalid).with_detail(error.to_string())
}

fn cannot_pack(error: &ArchiveError) -> Problem {
    let kind = match error {
        ArchiveError::Refused(_) => ProblemKind::ArchiveRefused,
        ArchiveError::Io { .. } => ProblemKind::Invalid,
    };
    Problem::new(kind).with_detail(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_packed_and_its_zip_goes_when_it_is_done_with() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("project");
        std::fs::create_dir(&project).unwrap();
        std::fs::write(project.join("main.c"), "int main;").unwrap();
        let packing_dir = dir.path().join("packing");
        std::fs::create_dir(&packing_dir).unwrap();
        std::fs::write(packing_dir.join("left-over"), "").unwrap();
        let picks = Picks::open(packing_dir.clone()).unwrap();

        let picked = picks.add(project).await.unwrap();
        assert_eq!((picked.name.as_str(), picked.size_bytes), ("project", 9));
        let zip = picks.zip(&picked.pick_id).await.unwrap();
        assert_eq!(zip.filename, "project.zip");
        assert!(zip.path().starts_with(&packing_dir));
        assert_eq!(std::fs::read_dir(&packing_dir).unwrap().count(), 1);
        drop(zip);
        assert_eq!(std::fs::read_dir(&packing_dir).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_page_can_hand_over_only_what_a_person_chose() {
        let dir = tempfile::tempdir().unwrap();
        let picks = Picks::open(dir.path().join("packing")).unwrap();
        let text = dir.path().join("notes.txt");
        std::fs::write(&text, "private").unwrap();

        assert_eq!(picks.add(text.clone()).await.unwrap_err().kind, ProblemKind::Invalid);
        let by_path = picks.zip(text.to_str().unwrap()).await.unwrap_err();
        assert_eq!(by_path.kind, ProblemKind::NotFound);

        let zip = dir.path().join("Input.ZIP");
        std::fs::write(&zip, "PK").unwrap();
        let picked = picks.add(zip.clone()).await.unwrap();
        assert_eq!(picks.zip(&picked.pick_id).await.unwrap().path(), zip);
    }

    #[test]
    fn a_result_s_name_stays_in_its_folder() {
        for (given, safe) in [
            ("outputs.zip", "outputs.zip"),
            ("../../.bashrc", "_.._.bashrc"),
            ("C:\\Windows\\x.exe", "C__Windows_x.exe"),
            (".hidden", "hidden"),
            ("", "result_"),
            ("..", "result_"),
            ("nul.txt", "result_nul.txt"),
            ("COM1", "result_COM1"),
            ("company.txt", "company.txt"),
            ("a\u{202e}gpj.exe", "a_gpj.exe"),
            ("a\nb", "a_b"),
        ] {
            assert_eq!(safe_name(given), safe, "{given:?}");
        }
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let names = |name| free_names(name).take(2).collect::<Vec<_>>();
        assert_eq!(names("out.zip"), ["out.zip", "out (2).zip"]);
        assert_eq!(names("log"), ["log", "log (2)"]);
    }
}
