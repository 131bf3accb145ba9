//! Makes archives that every PC accepts, the same bytes for the same folder.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek, SeekFrom, Write},
    path::Path,
};

use cap_std::{ambient_authority, fs::Dir};
use sha2::{Digest as _, Sha256};
use zip::{
    CompressionMethod, DateTime, System, ZipWriter, result::ZipError, write::SimpleFileOptions,
};

use super::{
    ArchiveError, Limits, Summary,
    names::{Names, is_too_deep},
    shown,
};
use crate::ids::Digest;

/// Files of at least this size are tried before they are packed: most large ones are packed already.
const TRIED_FROM_BYTES: u64 = 1024 * 1024;
/// How much of them is tried.
const TRIED_BYTES: u64 = 128 * 1024;
/// Files of this size get the wider size fields; the rest is room for data that packing makes longer.
const LARGE_FROM_BYTES: u64 = 0xf000_0000;

/// Files that pack better are stored; half of what an archive is allowed.
const RATIO_MAX: u64 = 100;
/// Smaller files cannot pack better than that.
const FLUSHED_FROM_BYTES: u64 = 2048;

/// A packed folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of the zip.
    pub digest: Digest,
    /// Size of the zip in bytes.
    pub size_bytes: u64,
    /// What is in it.
    pub summary: Summary,
}

/// How far [`pack`] is: bytes of files read so far, and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackProgress {
    /// Bytes of files read so far.
    pub done_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Packs a folder into `dest`, an empty file.
///
/// The same folder gives the same bytes: the order is by name, and times are left out. Nothing is left out silently.
/// A link to a file inside the folder is packed as that file; the mode is kept as far as "may be executed".
///
/// # Errors
/// Names what cannot be packed: a link out of the folder, a device, a name that another system does not allow.
pub fn pack(
    folder: &Path,
    dest: &mut File,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<Packed, ArchiveError> {
    let folder = Dir::open_ambient_dir(folder, ambient_authority())
        .map_err(|error| ArchiveError::io(format!("open {}", folder.display()), error))?;
    let items = list(&folder, &Limits::default(), None)?;
    write(&folder, &items, dest, progress)
}

/// Packs those files of a folder whose path, with `/` between names, is selected; empty folders are left out. The
/// folder may hold anything: what is not selected is not looked at, and no name leads out of it.
///
/// # Errors
/// As [`pack`], for what is selected.
pub fn pack_selected(
    folder: &Dir,
    dest: &mut File,
    limits: &Limits,
    select: &dyn Fn(&str) -> bool,
) -> Result<Packed, ArchiveError> {
    let items = list(folder, limits, Some(select))?;
    write(folder, &items, dest, &mut |_| {})
}

/// A file or folder to pack.
struct Item {
    folder: bool,
    executable: bool,
    bytes: u64,
}

/// Lists what is to be packed, by path. A path's bytes order folders before what is in them.
fn list(
    root: &Dir,
    limits: &Limits,
    select: Option<&dyn Fn(&str) -> bool>,
) -> Result<BTreeMap<String, Item>, ArchiveError> {
    let mut items = BTreeMap::new();
    let mut names = Names::new(limits);
    let mut total = 0_u64;
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let could_not_list =
            |error| ArchiveError::io(format!("list the folder {}", shown(&folder)), error);
        let at = if folder.is_empty() { "." } else { &folder };
        for entry in root.read_dir(at).map_err(could_not_list)? {
            let entry = entry.map_err(could_not_list)?;
            let Some(path) = path_of(&folder, &entry.file_name(), select.is_some())? else {
                continue;
            };
            let kind = entry.file_type().map_err(could_not_list)?;
            if kind.is_dir() {
                match select {
                    None => {
                        names.add(&path, true)?;
                        let item = Item { folder: true, executable: true, bytes: 0 };
                        items.insert(path.clone(), item);
                    }
                    // Nothing below could be packed. That is an error when it was asked for.
                    Some(select) if is_too_deep(&path, limits.depth) => {
                        if select(&path) {
                            names.add(&path, true)?;
                        }
                        continue;
                    }
                    Some(_) => {}
                }
                folders.push(path);
                continue;
            }
            if select.is_some_and(|select| !select(&path)) {
                continue;
            }
            names.add(&path, false)?;
            let item = look(root, &path, kind.is_symlink())?;
            total = total.saturating_add(item.bytes);
            if total > limits.total_bytes {
                return Err(ArchiveError::entry(
                    &path,
                    format!("makes more than {} bytes in all", limits.total_bytes),
                ));
            }
            items.insert(path, item);
        }
    }
    Ok(items)
}

/// The path of a name in a folder. Names that are no text are refused, unless only some files are selected: then
/// they are none of them.
fn path_of(
    folder: &str,
    name: &std::ffi::OsStr,
    selective: bool,
) -> Result<Option<String>, ArchiveError> {
    match name.to_str() {
        Some(name) if folder.is_empty() => Ok(Some(name.to_owned())),
        Some(name) => Ok(Some(format!("{folder}/{name}"))),
        None if selective => Ok(None),
        None => Err(ArchiveError::entry(
            &format!("{folder}/{}", name.to_string_lossy()),
            "has a name that is not UTF-8",
        )),
    }
}

fn look(root: &Dir, path: &str, link: bool) -> Result<Item, ArchiveError> {
    let metadata = root.metadata(path).map_err(|error| {
        if !link {
            could_not_pack(path, error)
        } else if error.kind() == io::ErrorKind::NotFound {
            ArchiveError::entry(path, "is a link to nothing")
        } else {
            ArchiveError::entry(path, "is a link out of the folder")
        }
    })?;
    if metadata.is_dir() {
        return Err(ArchiveError::entry(path, "is a link to a folder; only files can be packed"));
    }
    if !metadata.is_file() {
        return Err(ArchiveError::entry(path, "is a device, a pipe or a socket"));
    }
    #[cfg(unix)]
    let executable = {
        use cap_std::fs::PermissionsExt as _;
        metadata.permissions().mode() & 0o111 != 0
    };
    #[cfg(not(unix))]
    let executable = false;
    Ok(Item { folder: false, executable, bytes: metadata.len() })
}

fn write(
    root: &Dir,
    items: &BTreeMap<String, Item>,
    dest: &mut File,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<Packed, ArchiveError> {
    let mut summary =
        Summary { total_bytes: items.values().map(|item| item.bytes).sum(), ..Summary::default() };
    let mut done = PackProgress { done_bytes: 0, total_bytes: summary.total_bytes };
    progress(done);
    let written = Cell::new(0);
    let buffered = io::BufWriter::with_capacity(256 * 1024, &mut *dest);
    let mut writer = ZipWriter::new(Counted { inner: buffered, written: &written });
    summary.total_bytes = 0;
    for (path, item) in items {
        if item.folder {
            summary.folders += 1;
            writer.add_directory(path.as_str(), options(item)).map_err(could_not_write)?;
            continue;
        }
        summary.files += 1;
        let method = method_for(root, path, item)?;
        let before = written.get();
        let read = write_file(root, path, item, method, &mut writer, &mut |bytes| {
            done.done_bytes += bytes;
            progress(done);
        })?;
        summary.total_bytes += read;
        // What packs this well would be taken for a bomb: stored, it is within the rules.
        let packed = written.get() - before;
        if method == CompressionMethod::Deflated && read > packed * RATIO_MAX {
            writer.abort_file().map_err(could_not_write)?;
            let stored = CompressionMethod::Stored;
            write_file(root, path, item, stored, &mut writer, &mut |_| {})?;
        }
    }
    writer.finish().and_then(|mut counted| Ok(counted.flush()?)).map_err(could_not_write)?;
    let (digest, size_bytes) =
        hash(dest).map_err(|error| ArchiveError::io("read the archive again", error))?;
    Ok(Packed { digest, size_bytes, summary })
}

/// Counts the bytes that reach the archive.
struct Counted<'a, W> {
    inner: W,
    written: &'a Cell<u64>,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.written.set(self.written.get() + count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Seek> Seek for Counted<'_, W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

fn options(item: &Item) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .system(System::Unix)
        .unix_permissions(if item.executable { 0o755 } else { 0o644 })
        .last_modified_time(DateTime::default())
        .large_file(item.bytes >= LARGE_FROM_BYTES)
}

/// Stores what packing does not make smaller.
fn method_for(root: &Dir, path: &str, item: &Item) -> Result<CompressionMethod, ArchiveError> {
    if item.bytes < TRIED_FROM_BYTES {
        return Ok(CompressionMethod::Deflated);
    }
    let mut trial = ZipWriter::new(io::Cursor::new(Vec::new()));
    trial.start_file("", SimpleFileOptions::default()).map_err(could_not_write)?;
    let mut sample = open(root, path)?.take(TRIED_BYTES);
    io::copy(&mut sample, &mut trial).map_err(|error| could_not_pack(path, error))?;
    let packed = trial.finish().map_err(could_not_write)?.into_inner().len() as u64;
    Ok(if packed > TRIED_BYTES / 20 * 19 {
        CompressionMethod::Stored
    } else {
        CompressionMethod::Deflated
    })
}

/// Writes one file and says how many bytes it had.
fn write_file<W: Write + Seek>(
    root: &Dir,
    path: &str,
    item: &Item,
    method: CompressionMethod,
    writer: &mut ZipWriter<W>,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, ArchiveError> {
    let mut file = open(root, path)?;
    writer.start_file(path, options(item).compression_method(method)).map_err(could_not_write)?;
    let mut buffer = vec![0; 128 * 1024];
    let mut read = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(could_not_pack(path, error)),
        };
        writer
            .write_all(&buffer[..count])
            .map_err(|error| ArchiveError::io("write the archive", error))?;
        read += count as u64;
        progress(count as u64);
    }
    // Pushes what the packer still holds to the counter below; too small files cannot be bombs.
    if read >= FLUSHED_FROM_BYTES {
        writer.flush().map_err(|error| ArchiveError::io("write the archive", error))?;
    }
    Ok(read)
}

fn open(root: &Dir, path: &str) -> Result<cap_std::fs::File, ArchiveError> {
    root.open(path).map_err(|error| could_not_pack(path, error))
}

fn could_not_pack(path: &str, error: io::Error) -> ArchiveError {
    ArchiveError::io(format!("read {}", shown(path)), error)
}

fn could_not_write(error: ZipError) -> ArchiveError {
    ArchiveError::io("write the archive", error.into())
}

fn hash(file: &mut File) -> io::Result<(Digest, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let size = io::copy(file, &mut hasher)?;
    Ok((Digest::from_bytes(hasher.finalize().into()), size))
}
