//! Reads a zip's directory strictly: what two readers could understand differently is refused.

use std::io::{self, Read, Seek, SeekFrom};

use super::{ArchiveError, Limits, Summary, names::Names};

/// Most bytes of directory: 100,000 entries with long names.
const DIRECTORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const END64: [u8; 4] = *b"PK\x06\x06";
const END64_BYTES: u64 = 56;
const END64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const END64_LOCATOR_BYTES: u64 = 20;
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Stands for "the number is in the zip64 field".
const IN_ZIP64: u64 = 0xffff_ffff;

const FLAG_ENCRYPTED: u16 = 1;
const FLAG_SIZES_FOLLOW: u16 = 1 << 3;
/// Encryption, patches, strong encryption and hidden headers.
const FLAGS_REFUSED: u16 = FLAG_ENCRYPTED | 1 << 5 | 1 << 6 | 1 << 13;
const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;

/// One file or folder, as directory and local head agree on it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its path; a folder's without the trailing slash.
    pub(super) path: String,
    pub(super) folder: bool,
    pub(super) executable: bool,
    pub(super) packed: u64,
    pub(super) unpacked: u64,
    pub(super) crc: u32,
    /// Where its local head begins.
    pub(super) head: u64,
    flags: u16,
    method: u16,
}

/// Reads and checks the directory and every local head.
pub(super) fn read(
    source: &mut (impl Read + Seek),
    limits: &Limits,
) -> Result<Vec<Entry>, ArchiveError> {
    let end = find_end(source)?;
    if end.count > limits.entries {
        return Err(ArchiveError::whole(format!(
            "the archive holds {} entries; {} are allowed",
            end.count, limits.entries
        )));
    }

    let mut directory = vec![0; usize::try_from(end.size).unwrap_or(usize::MAX)];
    read_at(source, end.start, &mut directory)?;
    let mut fields = Fields(&directory);
    let mut names = Names::new(limits);
    let mut entries = Vec::new();
    for _ in 0..end.count {
        let entry = read_entry(&mut fields)?;
        names.add(&entry.path, entry.folder)?;
        entries.push(entry);
    }
    if !fields.0.is_empty() {
        return Err(ArchiveError::whole("the archive's directory holds more than it says"));
    }

    check_sizes(&entries, limits)?;
    check_places(source, &entries, end.start)?;
    Ok(entries)
}

/// Counts what the entries come to.
pub(super) fn summary(entries: &[Entry]) -> Summary {
    let folders = entries.iter().filter(|entry| entry.folder).count() as u64;
    Summary {
        files: entries.len() as u64 - folders,
        folders,
        total_bytes: entries.iter().map(|entry| entry.unpacked).sum(),
    }
}

/// Where the directory lies.
struct End {
    count: u64,
    size: u64,
    start: u64,
}

fn find_end(source: &mut (impl Read + Seek)) -> Result<End, ArchiveError> {
    let length = source.seek(SeekFrom::End(0)).map_err(could_not_read)?;
    let tail_start = length.saturating_sub(END_BYTES as u64 + u64::from(u16::MAX));
    let mut tail = vec![0; usize::try_from(length - tail_start).unwrap_or_default()];
    read_at(source, tail_start, &mut tail)?;

    let mut ends = tail.windows(END_BYTES).enumerate().filter_map(|(at, record)| {
        let comment = usize::from(u16::from_le_bytes([record[20], record[21]]));
        (record.starts_with(&END) && at + END_BYTES + comment == tail.len()).then_some(at)
    });
    let Some(at) = ends.next() else {
        return Err(ArchiveError::whole("this is not a zip archive, or its end is missing"));
    };
    if ends.next().is_some() {
        return Err(ArchiveError::whole("the archive has two ends"));
    }

    let mut fields = Fields(&tail[at + 4..]);
    let disks = [fields.u16()?, fields.u16()?];
    let (count_here, count) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
    let end = End { count, size: u64::from(fields.u32()?), start: u64::from(fields.u32()?) };
    if disks != [0, 0] || count_here != count {
        return Err(ArchiveError::whole("the archive is one of several parts"));
    }
    let place = tail_start + at as u64;
    let (end, place) = match find_end64(source, place, &end)? {
        Some(found) => found,
        None => (end, place),
    };
    if end.size > DIRECTORY_BYTES_MAX {
        return Err(ArchiveError::whole("the archive's directory is too large"));
    }
    if end.start.checked_add(end.size) != Some(place) {
        return Err(ArchiveError::whole("the archive's directory is not where its end says"));
    }
    Ok(end)
}

/// Reads the zip64 end when there is one, and where it begins. It must not contradict the plain end.
fn find_end64(
    source: &mut (impl Read + Seek),
    place: u64,
    plain: &End,
) -> Result<Option<(End, u64)>, ArchiveError> {
    let needed = plain.count == 0xffff || plain.size == IN_ZIP64 || plain.start == IN_ZIP64;
    let lie = || ArchiveError::whole("the archive's zip64 end does not fit its end");
    let mut locator = [0; END64_LOCATOR_BYTES as usize];
    if let Some(at) = place.checked_sub(END64_LOCATOR_BYTES) {
        read_at(source, at, &mut locator)?;
    }
    let mut fields = Fields(&locator);
    if fields.take(4)? != END64_LOCATOR {
        return if needed { Err(lie()) } else { Ok(None) };
    }
    let (disk, at, disks) = (fields.u32()?, fields.u64()?, fields.u32()?);
    if disk != 0
        || disks > 1
        || at.checked_add(END64_BYTES + END64_LOCATOR_BYTES).is_none_or(|end| end > place)
    {
        return Err(lie());
    }

    let mut record = [0; END64_BYTES as usize];
    read_at(source, at, &mut record)?;
    let mut fields = Fields(&record);
    let (magic, size) = (fields.take(4)?, fields.u64()?);
    fields.take(4)?;
    let (disk, directory_disk) = (fields.u32()?, fields.u32()?);
    let (count_here, count) = (fields.u64()?, fields.u64()?);
    let end = End { count, size: fields.u64()?, start: fields.u64()? };
    let fits = |small: u64, large: u64, stand_in: u64| small == stand_in || small == large;
    if magic != END64
        || size.checked_add(12 + at) != Some(place - END64_LOCATOR_BYTES)
        || [disk, directory_disk] != [0, 0]
        || count_here != count
        || !fits(plain.count, end.count, 0xffff)
        || !fits(plain.size, end.size, IN_ZIP64)
        || !fits(plain.start, end.start, IN_ZIP64)
    {
        return Err(lie());
    }
    Ok(Some((end, at)))
}

fn read_entry(fields: &mut Fields<'_>) -> Result<Entry, ArchiveError> {
    if fields.take(4)? != CENTRAL {
        return Err(ArchiveError::whole("the archive's directory is damaged"));
    }
    fields.take(4)?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.take(4)?;
    let crc = fields.u32()?;
    let (packed, unpacked) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
    let name_length = usize::from(fields.u16()?);
    let extra_length = usize::from(fields.u16()?);
    let comment_length = usize::from(fields.u16()?);
    let disk = fields.u16()?;
    fields.take(2)?;
    let (attributes, head) = (fields.u32()?, u64::from(fields.u32()?));
    let raw_name = fields.take(name_length)?;
    let extra = fields.take(extra_length)?;
    fields.take(comment_length)?;

    let Ok(name) = std::str::from_utf8(raw_name) else {
        return Err(ArchiveError::entry(
            &String::from_utf8_lossy(raw_name),
            "has a name that is not UTF-8",
        ));
    };
    let refuse = |rule: &str| ArchiveError::entry(name, rule);
    if flags & FLAGS_REFUSED != 0 || method == 99 {
        return Err(refuse("is encrypted"));
    }
    if method != METHOD_STORED && method != METHOD_DEFLATED {
        return Err(refuse("is packed by a method other than store and deflate"));
    }
    if disk != 0 {
        return Err(refuse("lies in another part of the archive"));
    }
    let mut large = [(unpacked, 0), (packed, 0), (head, 0)];
    read_extra(extra, name, &mut large)?;
    let [unpacked, packed, head] = large.map(|(_, value)| value);

    let folder = name.ends_with('/');
    check_kind(attributes, folder).map_err(refuse)?;
    if folder && (unpacked != 0 || packed > 2) {
        return Err(refuse("is a folder with contents of its own"));
    }
    if method == METHOD_STORED && packed != unpacked {
        return Err(refuse("has two sizes"));
    }
    Ok(Entry {
        path: name.strip_suffix('/').unwrap_or(name).to_owned(),
        folder,
        executable: attributes >> 16 & 0o111 != 0,
        packed,
        unpacked,
        crc,
        head,
        flags,
        method,
    })
}

/// Walks the extra fields and fills in the numbers that are too large for their plain place: `large` holds pairs of
/// the plain value and the true one.
fn read_extra(extra: &[u8], name: &str, large: &mut [(u64, u64)]) -> Result<(), ArchiveError> {
    let refuse = |rule: &str| ArchiveError::entry(name, rule);
    let mut zip64 = None;
    let mut fields = Fields(extra);
    while !fields.0.is_empty() {
        let damaged = |_| refuse("has a damaged extra field");
        let (id, length) = (fields.u16().map_err(damaged)?, fields.u16().map_err(damaged)?);
        let content = fields.take(usize::from(length)).map_err(damaged)?;
        match id {
            0x0001 if zip64.is_some() => return Err(refuse("has two zip64 fields")),
            0x0001 => zip64 = Some(content),
            // A second name, after the version and the first name's checksum.
            0x7075 if content.get(5..) != Some(name.as_bytes()) => {
                return Err(refuse("has two names"));
            }
            // Old Unix fields: what follows the times and ids is the target of a link or the number of a device.
            0x000d if content.len() > 12 => return Err(refuse("is a link or a device")),
            0x756e if content.get(6..10) != Some(&[0; 4]) => {
                return Err(refuse("is a link or a device"));
            }
            _ => {}
        }
    }
    let mut zip64 = Fields(zip64.unwrap_or_default());
    for (plain, value) in large {
        *value = if *plain == IN_ZIP64 {
            zip64.u64().map_err(|_| refuse("lacks the zip64 numbers it refers to"))?
        } else {
            *plain
        };
    }
    Ok(())
}

/// Allows files and folders only. The upper half of the attributes is a Unix mode or zero, whoever wrote the archive.
fn check_kind(attributes: u32, folder: bool) -> Result<(), &'static str> {
    const TYPE: u32 = 0o170_000;
    const DOS_FOLDER: u32 = 0x10;
    const WINDOWS_REPARSE_POINT: u32 = 0x400;

    match (attributes >> 16 & TYPE, folder) {
        (0, _) | (0o100_000, false) | (0o040_000, true) => {}
        (0o100_000, true) | (0o040_000, false) => return Err("is a file and a folder at once"),
        (0o120_000, _) => return Err("is a symbolic link"),
        _ => return Err("is a device, a pipe or a socket"),
    }
    if attributes & WINDOWS_REPARSE_POINT != 0 {
        return Err("is a link of Windows");
    }
    if attributes & DOS_FOLDER != 0 && !folder {
        return Err("is a file and a folder at once");
    }
    Ok(())
}

fn check_sizes(entries: &[Entry], limits: &Limits) -> Result<(), ArchiveError> {
    let (mut total, mut total_packed) = (0_u64, 0_u64);
    let bomb = |packed: u64, unpacked: u64| {
        unpacked >= limits.ratio_from_bytes && unpacked > packed.saturating_mul(limits.ratio)
    };
    for entry in entries {
        total = total.saturating_add(entry.unpacked);
        total_packed = total_packed.saturating_add(entry.packed);
        if total > limits.total_bytes {
            return Err(ArchiveError::whole(format!(
                "the archive unpacks to more than {} bytes",
                limits.total_bytes
            )));
        }
        if bomb(entry.packed, entry.unpacked) {
            return Err(ArchiveError::entry(
                &entry.path,
                format!("unpacks to more than {} times its size", limits.ratio),
            ));
        }
    }
    if bomb(total_packed, total) {
        return Err(ArchiveError::whole(format!(
            "the archive unpacks to more than {} times its size",
            limits.ratio
        )));
    }
    Ok(())
}

/// Compares each local head with the directory, and makes sure that no two entries share a byte.
fn check_places(
    source: &mut (impl Read + Seek),
    entries: &[Entry],
    directory: u64,
) -> Result<(), ArchiveError> {
    let mut by_place: Vec<&Entry> = entries.iter().collect();
    by_place.sort_by_key(|entry| entry.head);
    let mut free_from = 0;
    for entry in by_place {
        if entry.head < free_from {
            return Err(ArchiveError::entry(&entry.path, "shares bytes with another entry"));
        }
        let data = check_local(source, entry, directory)?;
        free_from = data
            .checked_add(entry.packed)
            .filter(|end| *end <= directory)
            .ok_or_else(|| ArchiveError::entry(&entry.path, "reaches past the archive's end"))?;
    }
    Ok(())
}

/// Checks one local head and says where its data begin.
fn check_local(
    source: &mut (impl Read + Seek),
    entry: &Entry,
    directory: u64,
) -> Result<u64, ArchiveError> {
    const HEAD_BYTES: u64 = 30;

    let refuse = |rule: &str| ArchiveError::entry(&entry.path, rule);
    if entry.head.checked_add(HEAD_BYTES).is_none_or(|end| end > directory) {
        return Err(refuse("reaches past the archive's end"));
    }
    let mut head = [0; HEAD_BYTES as usize];
    read_at(source, entry.head, &mut head)?;
    let mut fields = Fields(&head);
    let magic = fields.take(4)?;
    fields.take(2)?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.take(4)?;
    let crc = fields.u32()?;
    let (packed, unpacked) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
    let name_length = usize::from(fields.u16()?);
    let extra_length = usize::from(fields.u16()?);

    let mut rest = vec![0; name_length + extra_length];
    let data = entry.head + HEAD_BYTES + rest.len() as u64;
    if magic != LOCAL || data > directory {
        return Err(refuse("is not where the directory says"));
    }
    source.read_exact(&mut rest).map_err(could_not_read)?;
    let (name, extra) = rest.split_at(name_length);
    let listed = name.strip_suffix(b"/").map_or((name, false), |name| (name, true));
    if listed != (entry.path.as_bytes(), entry.folder) {
        return Err(refuse("has another name in the directory than at its place"));
    }
    let mut large = [(unpacked, 0), (packed, 0)];
    read_extra(extra, &String::from_utf8_lossy(name), &mut large)?;
    let [unpacked, packed] = large.map(|(_, value)| value);
    let same = (crc, packed, unpacked) == (entry.crc, entry.packed, entry.unpacked);
    // A streaming writer knows size and checksum only after the data and leaves zeros in the head.
    let follow = flags & FLAG_SIZES_FOLLOW != 0 && (crc, packed, unpacked) == (0, 0, 0);
    if flags != entry.flags || method != entry.method || !(same || follow) {
        return Err(refuse("is described differently in the directory than at its place"));
    }
    Ok(data)
}

fn read_at(
    source: &mut (impl Read + Seek),
    at: u64,
    buffer: &mut [u8],
) -> Result<(), ArchiveError> {
    source.seek(SeekFrom::Start(at)).and_then(|_| source.read_exact(buffer)).map_err(could_not_read)
}

fn could_not_read(error: io::Error) -> ArchiveError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ArchiveError::whole("the archive ends too early");
    }
    ArchiveError::io("read the archive", error)
}

/// Bytes that are taken from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ArchiveError> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(ArchiveError::whole("the archive's directory is damaged"));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, ArchiveError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ArchiveError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ArchiveError> {
        self.array().map(u64::from_le_bytes)
    }
}
