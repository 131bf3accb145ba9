//! The attempt's folder: made, filled with the input, and removed whatever the job left in it.

use std::{
    fs, io,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use lull_shared::{
    archive::{self, ArchiveError},
    jobs::FailureKind,
};
use tokio::{runtime::Handle, task};

use super::{
    RunSpec, Stop, WORK,
    control::{Controlled, Wish},
    error_chain,
};

/// Makes the folder and unpacks the input into it.
pub(super) async fn prepare(spec: &RunSpec, control: &mut Controlled) -> Result<(), Stop> {
    let folder = spec.folder.clone();
    let input = spec.input.clone();
    let limits = spec.limits;
    let steered = control.clone();
    let prepared = task::spawn_blocking(move || {
        remove_folder(&folder).and_then(|()| make(&folder)).map_err(|error| {
            Stop::Failed(kind_of(&error), format!("could not make the job's folder: {error}"))
        })?;
        let Some(input) = input else { return Ok(()) };
        let file = fs::File::open(&input).map_err(|error| {
            let message = format!("could not open the input: {error}");
            Stop::Failed(FailureKind::InputUnavailable, message)
        })?;
        archive::extract(Steered { file, control: steered }, &folder.join(WORK), &limits)
            .map(drop)
            .map_err(|error| refusal(&error))
    });
    let result = match prepared.await {
        Ok(result) => result,
        Err(error) => Err(Stop::Failed(FailureKind::Internal, error.to_string())),
    };
    // A kill makes the unpacking fail somehow; the kill is the reason then.
    match control.wish() {
        Wish::Kill(reason) => Err(Stop::Killed(reason)),
        Wish::Run | Wish::Suspend => result,
    }
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    builder.create(folder)?;
    builder.create(folder.join(WORK))
}

fn refusal(error: &ArchiveError) -> Stop {
    let kind = match error {
        ArchiveError::Refused(_) => FailureKind::InputRefused,
        ArchiveError::Io { source, .. } => kind_of(source),
    };
    Stop::Failed(kind, error_chain(error))
}

/// Whether the disk is full, or something else is wrong with it.
pub(super) fn kind_of(error: &io::Error) -> FailureKind {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    if full.contains(&error.kind()) { FailureKind::DiskFull } else { FailureKind::Internal }
}

/// The input, read only while the run is wanted: a large archive stops unpacking as promptly as a process stops.
struct Steered {
    file: fs::File,
    control: Controlled,
}

impl Read for Steered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Handle::current()
            .block_on(self.control.until_running())
            .map_err(|_| io::Error::other("the run was killed"))?;
        self.file.read(buffer)
    }
}

impl Seek for Steered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Removes a folder off the runtime's threads; what cannot be removed is logged.
pub(super) async fn remove(folder: PathBuf) {
    let removed = task::spawn_blocking(move || remove_folder(&folder)).await;
    if let Err(error) = removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        tracing::warn!(%error, "a job's folder could not be removed");
    }
}

/// Removes a folder and everything in it, read-only files and folders too. Missing is fine.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => Ok(()),
        Err(_) => {
            make_removable(folder);
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            }
        }
    }
}

/// Takes read-only marks away, without following links. What cannot be changed shows when it is removed.
fn make_removable(root: &Path) {
    let mut next = vec![root.to_owned()];
    while let Some(path) = next.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_symlink() {
            continue;
        }
        let mut permissions = metadata.permissions();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            if !metadata.is_dir() {
                continue;
            }
            permissions.set_mode(0o700);
        }
        #[cfg(not(unix))]
        permissions.set_readonly(false);
        let _ = fs::set_permissions(&path, permissions);
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            next.extend(entries.map(|entry| entry.path()));
        }
    }
}
