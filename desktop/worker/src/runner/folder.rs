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
    // Without an input that takes no time.
    if spec.input.is_none() {
        match make_work(&spec.folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && spec.keeps_work => {
                return Ok(());
            }
            Err(_) => {}
        }
    }
    let folder = spec.folder.clone();
    let input = spec.input.clone();
    let limits = spec.limits;
    let steered = control.clone();
    let prepared = task::spawn_blocking(move || {
        let made =
            remove_folder(&folder).and_then(|()| make(&folder)).and_then(|()| make_work(&folder));
        made.map_err(|error| {
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

/// Makes the attempt's folder, empty: whatever was there is removed.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    match builder().create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_folder(folder)?;
            builder().create(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            builder().recursive(true).create(folder)
        }
        result => result,
    }
}

/// Makes the folder that the job sees in one that has just been made.
fn make_work(folder: &Path) -> io::Result<()> {
    builder().create(folder.join(WORK))
}

/// Whether nothing in an attempt's folder is left but the folder that its job saw.
pub(crate) fn holds_only_work(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names == [WORK]
}

/// Whether a job left its folder as it found it: nothing in it, and nothing on it that another job could read. The
/// time of its last change is set anew.
#[cfg(unix)]
pub(super) fn is_as_new(work: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::{AtFlags, CWD, Timestamps, UTIME_NOW, listxattr, utimensat};
    /// A folder that held many files stays large.
    const BYTES_MAX: u64 = 4096;

    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let mut names = [0_u8; 256];
    let plain = fs::symlink_metadata(work).is_ok_and(|metadata| {
        metadata.is_dir() && metadata.mode() & 0o7777 == 0o700 && metadata.size() <= BYTES_MAX
    });
    // What the system itself notes there is no job's to change.
    let unmarked = match listxattr(work, &mut names) {
        Ok(length) => names[..length]
            .split(|byte| *byte == 0)
            .all(|name| name.is_empty() || name.starts_with(b"security.")),
        Err(error) => error == rustix::io::Errno::NOTSUP,
    };
    plain
        && unmarked
        && fs::read_dir(work).is_ok_and(|mut entries| entries.next().is_none())
        && utimensat(CWD, work, &times, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

#[cfg(not(unix))]
pub(super) fn is_as_new(_: &Path) -> bool {
    false
}

/// For this account only.
fn builder() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(false);
    builder
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
    if fs::remove_dir(&folder).is_ok() {
        return;
    }
    let removed = task::spawn_blocking(move || remove_folder(&folder)).await;
    if let Err(error) = removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        tracing::warn!(%error, "a job's folder could not be removed");
    }
}

/// Removes a folder and everything in it, read-only files and folders too, however deep. Missing is fine.
///
/// What lies very deep is first moved up to the top. So no path gets long and no chain of open folders either,
/// whatever a job dug.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    if fs::symlink_metadata(folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    Removal { top: folder, moved: 0 }.remove(folder, 0)
}

struct Removal<'a> {
    top: &'a Path,
    /// How many folders were moved to the top.
    moved: u64,
}

impl Removal<'_> {
    fn remove(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        const DEPTH_MAX: usize = 64;
        const PATH_BYTES_MAX: usize = 2000;

        make_writable(folder)?;
        // What arrives in a folder while it is read may not show: it is read until it is empty.
        loop {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let path = entry.path();
                if !entry.file_type()?.is_dir() {
                    remove_file(&path)?;
                } else if depth < DEPTH_MAX && path.as_os_str().len() < PATH_BYTES_MAX {
                    self.remove(&path, depth + 1)?;
                } else {
                    make_writable(&path)?;
                    self.move_up(&path)?;
                }
            }
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                result => return result,
            }
        }
    }

    /// Moves a folder to the top under a name that is free there.
    fn move_up(&mut self, folder: &Path) -> io::Result<()> {
        loop {
            self.moved += 1;
            let to = self.top.join(format!(".lull-removed-{}", self.moved));
            if fs::symlink_metadata(&to).is_err() {
                return fs::rename(folder, to);
            }
        }
    }
}

/// Lets a folder's entries be removed. The folder is no link, and nothing of the job is left to make it one.
fn make_writable(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        Ok(())
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        #[cfg(windows)]
        Err(_) => {
            // A read-only mark keeps a file, and a link to a folder is removed like a folder.
            let mut permissions = fs::symlink_metadata(path)?.permissions();
            permissions.set_readonly(false);
            let _ = fs::set_permissions(path, permissions);
            fs::remove_file(path).or_else(|_| fs::remove_dir(path))
        }
        result => result,
    }
}
