//! Checks archives and unpacks them, through a handle on the folder that no name can lead out of.

use std::{
    io::{self, Read, Seek, Write as _},
    path::Path,
};

use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions},
};
use zip::ZipArchive;

use super::{
    ArchiveError, Limits, Summary,
    directory::{self, Entry},
    shown,
};

/// Checks an archive without unpacking it: its directory and the heads of its entries are read, nothing else.
///
/// # Errors
/// [`ArchiveError::Refused`] names the entry and the rule.
pub fn check(mut source: impl Read + Seek, limits: &Limits) -> Result<Summary, ArchiveError> {
    directory::read(&mut source, limits).map(|entries| directory::summary(&entries))
}

/// Checks an archive and unpacks it into an existing, empty folder. After an error the folder is empty again.
///
/// Archives inside the archive are files like any other. Of a file's mode, only whether it may be executed is kept.
///
/// # Errors
/// As [`check`], and when an entry is not what the directory says.
pub fn extract(
    mut source: impl Read + Seek,
    folder: &Path,
    limits: &Limits,
) -> Result<Summary, ArchiveError> {
    let entries = directory::read(&mut source, limits)?;
    let mut archive = ZipArchive::new(source)
        .map_err(|error| ArchiveError::whole(format!("the archive is damaged: {error}")))?;
    check_agreement(&archive, &entries)?;

    let folder = Dir::open_ambient_dir(folder, ambient_authority())
        .map_err(|error| ArchiveError::io("open the folder to unpack into", error))?;
    let is_empty = folder.entries().and_then(|mut entries| entries.next().transpose());
    if is_empty
        .map_err(|error| ArchiveError::io("read the folder to unpack into", error))?
        .is_some()
    {
        let error = io::Error::from(io::ErrorKind::DirectoryNotEmpty);
        return Err(ArchiveError::io("unpack into the folder", error));
    }

    let unpacked = entries
        .iter()
        .enumerate()
        .try_for_each(|(index, entry)| unpack(&mut archive, index, entry, &folder));
    if let Err(error) = unpacked {
        empty(&folder);
        return Err(error);
    }
    Ok(directory::summary(&entries))
}

/// The `zip` crate must see the same entries at the same places; otherwise what was checked is not what is unpacked.
fn check_agreement<R: Read + Seek>(
    archive: &ZipArchive<R>,
    entries: &[Entry],
) -> Result<(), ArchiveError> {
    let disagree = || ArchiveError::whole("the archive can be read in two ways");
    if archive.len() != entries.len() {
        return Err(disagree());
    }
    for (index, entry) in entries.iter().enumerate() {
        let other = archive.by_index_data(index).map_err(|_| disagree())?;
        let name = other.name_raw();
        let path = name.strip_suffix(b"/").unwrap_or(name);
        let same = path == entry.path.as_bytes()
            && other.header_start() == entry.head
            && (other.compressed_size(), other.size(), other.crc32())
                == (entry.packed, entry.unpacked, entry.crc);
        if !same {
            return Err(disagree());
        }
    }
    Ok(())
}

fn unpack<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    index: usize,
    entry: &Entry,
    folder: &Dir,
) -> Result<(), ArchiveError> {
    let could_not_write = |error| ArchiveError::io(format!("write {}", shown(&entry.path)), error);
    if entry.folder {
        return folder.create_dir_all(&entry.path).map_err(could_not_write);
    }
    if let Some((parent, _)) = entry.path.rsplit_once('/') {
        folder.create_dir_all(parent).map_err(could_not_write)?;
    }
    let mut file = folder.open_with(&entry.path, &options(entry)).map_err(could_not_write)?;

    let damaged = |detail: &dyn std::fmt::Display| {
        ArchiveError::entry(&entry.path, format!("is damaged: {detail}"))
    };
    let mut data = archive.by_index(index).map_err(|error| damaged(&error))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut written = 0_u64;
    loop {
        let count = match data.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Errors of the disk carry its code; what else goes wrong is in the data.
            Err(error) if error.raw_os_error().is_some() => {
                return Err(ArchiveError::io("read the archive", error));
            }
            Err(error) => return Err(damaged(&error)),
        };
        written += count as u64;
        if written > entry.unpacked {
            return Err(ArchiveError::entry(&entry.path, "unpacks to more than it says"));
        }
        file.write_all(&buffer[..count]).map_err(could_not_write)?;
    }
    if written != entry.unpacked {
        return Err(ArchiveError::entry(&entry.path, "unpacks to less than it says"));
    }
    file.flush().map_err(could_not_write)
}

fn options(entry: &Entry) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt as _;
        options.mode(if entry.executable { 0o755 } else { 0o644 });
    }
    #[cfg(not(unix))]
    let _ = entry.executable;
    options
}

/// Takes back what was unpacked. What cannot be removed is left for the owner of the folder, who has the error.
fn empty(folder: &Dir) {
    let Ok(entries) = folder.entries() else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let _ = if is_folder { folder.remove_dir_all(&name) } else { folder.remove_file(&name) };
    }
}
