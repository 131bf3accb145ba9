//! Archives that must be refused, each made byte by byte, and the way of a folder into a zip and out again.
#![cfg(feature = "archive")]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{
    fs,
    io::{Cursor, Write as _},
    path::Path,
};

use lull_shared::archive::{self, ArchiveError, Limits};

// Z1: paths that lead elsewhere.

#[test]
fn z1_a_path_that_climbs_out_is_refused() {
    for name in ["../evil", "a/../../evil", "a/..", "..", "a/../b"] {
        refused(&[Raw::file(name)], "leads out of the folder");
    }
    refused(&[Raw::file("./a")], "has \".\" in its path");
    refused(&[Raw::file("a//b")], "empty name");
}

#[test]
fn z1_an_absolute_path_is_refused() {
    refused(&[Raw::file("/etc/passwd")], "absolute");
    refused(&[Raw::file("//server/share/x")], "absolute");
}

#[test]
fn z1_a_drive_letter_is_refused() {
    refused(&[Raw::file("C:evil")], "drive letter");
    refused(&[Raw::file("c:/evil")], "drive letter");
}

#[test]
fn z1_backslashes_of_shares_and_devices_are_refused() {
    for name in ["\\\\server\\share\\x", "\\\\?\\C:\\x", "\\\\.\\pipe\\x", "a\\..\\..\\x", "a\\b"] {
        refused(&[Raw::file(name)], "backslash");
    }
}

#[test]
fn z1_one_bad_entry_refuses_the_whole_archive_before_anything_is_written() {
    let bytes = build(&[Raw::file("good"), Raw::file("../evil")]);
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("job");
    fs::create_dir(&folder).unwrap();
    assert!(archive::extract(Cursor::new(bytes), &folder, &Limits::default()).is_err());
    assert_eq!(listing(parent.path()), ["job/"]);
}

// Z2: what is neither a file nor a folder.

#[test]
fn z2_a_symbolic_link_is_refused() {
    let mut link = Raw::file("link");
    link.attributes = 0o120_777 << 16;
    link.set_data(b"/etc/passwd");
    refused(&[link], "symbolic link");
}

#[test]
fn z2_a_hard_link_is_refused() {
    let mut link = Raw::file("link");
    // Old Unix field: two times, two ids, then the target.
    link.extra = field(0x000d, &[&[0; 12][..], b"/etc/passwd"].concat());
    refused(&[link], "link");
    let mut link = Raw::file("link");
    link.extra =
        field(0x756e, &[&[0; 6][..], &11_u32.to_le_bytes(), &[0; 4], b"/etc/passwd"].concat());
    refused(&[link], "link");
}

#[test]
fn z2_devices_pipes_and_sockets_are_refused() {
    for mode in [0o020_666, 0o060_666, 0o010_666, 0o140_666_u32] {
        let mut entry = Raw::file("device");
        entry.attributes = mode << 16;
        refused(&[entry], "device, a pipe or a socket");
    }
}

#[test]
fn z2_a_windows_reparse_point_is_refused() {
    let mut entry = Raw::file("junction");
    entry.attributes = 0x400;
    refused(&[entry], "link of Windows");
}

// Z3: bombs.

#[test]
fn z3_more_bytes_than_allowed_are_refused() {
    let limits = Limits { total_bytes: 9, ..Limits::default() };
    let mut a = Raw::file("a");
    a.set_data(b"12345");
    let mut b = Raw::file("b");
    b.set_data(b"12345");
    refused_within(&[a, b], &limits, "more than 9 bytes");
}

#[test]
fn z3_sizes_that_overflow_are_refused() {
    let entries = ["a", "b"].map(|name| {
        let mut entry = Raw::file(name);
        entry.unpacked = u64::MAX;
        entry.method = 8;
        entry
    });
    refused(&entries, "more than");
}

#[test]
fn z3_a_ratio_above_200_is_refused_above_10_mb_only() {
    refused(&[Raw::zeros("bomb", 11 * 1024 * 1024)], "200 times");
    archive::check(Cursor::new(build(&[Raw::zeros("fine", 9 * 1024 * 1024)])), &Limits::default())
        .unwrap();
}

#[test]
fn z3_a_bomb_of_many_small_files_is_refused() {
    let entries: Vec<_> = (0..4).map(|n| Raw::zeros(&n.to_string(), 4 * 1024 * 1024)).collect();
    refused(&entries, "200 times");
}

#[test]
fn z3_too_many_entries_are_refused() {
    let limits = Limits { entries: 3, ..Limits::default() };
    let four = ["a", "b", "c", "d"].map(Raw::file);
    refused_within(&four, &limits, "4 entries; 3 are allowed");
    // Folders that only paths name count too.
    refused_within(&[Raw::file("a/b/c/d")], &limits, "more than 3 files and folders");
    let end_lies = patch(&build(&four), b"PK\x05\x06", 8, &[0xfe, 0xff, 0xfe, 0xff]);
    refused_bytes(&end_lies, &Limits::default(), "damaged");
}

#[test]
fn z3_a_path_that_is_too_deep_is_refused() {
    refused(&[Raw::file(&vec!["d"; 65].join("/"))], "64 folders deep");
    refused(&[Raw::file(&vec!["long-name".repeat(20); 12].join("/"))], "2000 bytes");
}

#[test]
fn z3_entries_that_share_bytes_are_refused() {
    let mut second = Raw::file("b");
    second.head = Some(0);
    second.local_name = Some(b"a".to_vec());
    refused(&[Raw::file("a"), second], "shares bytes");

    let mut kernel = Raw::file("b");
    kernel.set_data(b"data");
    let mut quote = Raw::file("a");
    // Its data reach into the next entry.
    quote.set_data(b"x");
    quote.packed += 10;
    quote.unpacked += 10;
    refused(&[quote, kernel], "shares bytes");
}

#[test]
fn z3_data_past_the_end_are_refused() {
    let mut entry = Raw::file("a");
    entry.packed = 1 << 20;
    entry.unpacked = 1 << 20;
    refused(&[entry], "past the archive's end");
}

#[test]
fn z3_a_file_larger_than_it_says_is_refused_and_nothing_stays() {
    let mut liar = Raw::zeros("liar", 5000);
    liar.unpacked = 4000;
    late_refusal(&[Raw::file("dir/good"), liar]);
}

#[test]
fn z3_a_file_smaller_than_it_says_is_refused_and_nothing_stays() {
    let mut liar = Raw::zeros("liar", 5000);
    liar.unpacked = 6000;
    late_refusal(&[Raw::file("dir/good"), liar]);
}

#[test]
fn z3_a_wrong_checksum_is_refused_and_nothing_stays() {
    let mut liar = Raw::file("liar");
    liar.set_data(b"content");
    liar.crc ^= 1;
    late_refusal(&[Raw::file("dir/good"), liar]);
}

#[test]
fn z3_an_archive_in_the_archive_stays_a_file() {
    let inner = build(&[Raw::file("../evil")]);
    let mut outer = Raw::file("inner.zip");
    outer.set_data(&inner);
    let folder = tempfile::tempdir().unwrap();
    archive::extract(Cursor::new(build(&[outer])), folder.path(), &Limits::default()).unwrap();
    assert_eq!(listing(folder.path()), ["inner.zip"]);
    assert_eq!(fs::read(folder.path().join("inner.zip")).unwrap(), inner);
}

// Z4: names that another system takes for something else.

#[test]
fn z4_names_that_differ_only_in_case_are_refused() {
    refused(&[Raw::file("a"), Raw::file("A")], "cannot tell it from \"a\"");
    refused(&[Raw::file("Dir/x"), Raw::file("dir/y")], "cannot tell");
    refused(&[Raw::file("straße"), Raw::file("STRASSE")], "cannot tell");
}

#[test]
fn z4_names_that_differ_only_in_their_composition_are_refused() {
    refused(&[Raw::file("caf\u{e9}"), Raw::file("cafe\u{301}")], "cannot tell");
}

#[test]
fn z4_trailing_dots_and_spaces_are_refused() {
    for name in ["a.", "a ", "a./b", "dir /b", "..."] {
        refused(&[Raw::file(name)], "ends with a dot or a space");
    }
}

#[test]
fn z4_device_names_are_refused() {
    for name in
        ["CON", "nul", "COM1", "lpt9.txt", "CLOCK$", "aux.tar.gz", "x/prn", "COM¹", "con .txt"]
    {
        refused(&[Raw::file(name)], "name of a device");
    }
    accepted(&["console", "com10", "nullable", "com", "lpt-1"].map(Raw::file));
}

#[test]
fn z4_a_colon_is_refused() {
    refused(&[Raw::file("file.txt:hidden")], "colon");
}

#[test]
fn z4_characters_that_windows_forbids_are_refused() {
    for name in ["a<b", "a>b", "a\"b", "a|b", "a?b", "a*b"] {
        refused(&[Raw::file(name)], "Windows does not allow");
    }
    for name in ["a\nb", "a\u{1b}b", "a\u{7f}b", "a\0b"] {
        refused(&[Raw::file(name)], "control character");
    }
}

#[test]
fn z4_names_of_more_than_255_bytes_are_refused() {
    accepted(&[Raw::file(&"x".repeat(255))]);
    refused(&[Raw::file(&"x".repeat(256))], "more than 255 bytes");
    refused(&[Raw::file(&"ü".repeat(128))], "more than 255 bytes");
}

#[test]
fn z4_a_path_that_is_a_file_and_a_folder_is_refused() {
    refused(&[Raw::file("a"), Raw::file("a/b")], "a file and a folder");
    refused(&[Raw::file("a/b"), Raw::file("a")], "a file and a folder");
    refused(&[Raw::folder("a/"), Raw::file("a")], "a file and a folder");
    refused(&[Raw::file("a"), Raw::file("a")], "is there twice");
}

#[test]
fn z4_messages_never_carry_raw_control_characters() {
    let error = check(&[Raw::file("a\u{1b}]0;title\u{7}\u{202e}")]).unwrap_err().to_string();
    assert!(error.chars().all(|char| !char.is_control() && char != '\u{202e}'), "{error:?}");
}

// Z5: archives that can be read in two ways.

#[test]
fn z5_a_name_that_is_not_utf8_is_refused() {
    let mut entry = Raw::file("x");
    entry.name = b"caf\x82".to_vec();
    refused(&[entry], "not UTF-8");
}

#[test]
fn z5_two_different_names_are_refused() {
    let mut entry = Raw::file("good");
    entry.local_name = Some(b"evil".to_vec());
    refused(&[entry], "another name");
    let mut entry = Raw::file("good");
    entry.extra = field(0x7075, b"\x01\0\0\0\0evil");
    refused(&[entry], "two names");
}

#[test]
fn z5_a_local_head_that_differs_is_refused() {
    let bytes = build(&[Raw::file("a")]);
    // Method, checksum, packed size, unpacked size.
    for at in [8, 14, 18, 22] {
        refused_bytes(&patch(&bytes, b"PK\x03\x04", at, &[8]), &Limits::default(), "differently");
    }
}

#[test]
fn z5_an_encrypted_entry_is_refused() {
    let mut entry = Raw::file("a");
    entry.flags |= 1;
    refused(&[entry], "encrypted");
    let mut entry = Raw::file("a");
    entry.method = 99;
    refused(&[entry], "encrypted");
}

#[test]
fn z5_other_methods_are_refused() {
    let mut entry = Raw::file("a");
    entry.method = 12;
    refused(&[entry], "other than store and deflate");
}

#[test]
fn z5_zip64_numbers_that_lie_are_refused() {
    let mut entry = Raw::file("a");
    entry.force_large = true;
    accepted(&[entry]);
    // The entry refers to numbers that are not there.
    let bytes = patch(&build(&[Raw::file("a")]), b"PK\x01\x02", 24, &[0xff; 4]);
    refused_bytes(&bytes, &Limits::default(), "zip64");
    // The end refers to a zip64 end that is not there.
    let bytes = patch(&build(&[Raw::file("a")]), b"PK\x05\x06", 16, &[0xff; 4]);
    refused_bytes(&bytes, &Limits::default(), "zip64");
    // A zip64 end that contradicts the plain one.
    let bytes = build64(&[Raw::file("a")]);
    archive::check(Cursor::new(&bytes), &Limits::default()).unwrap();
    refused_bytes(&patch(&bytes, b"PK\x06\x06", 32, &[2]), &Limits::default(), "zip64");
    refused_bytes(&patch(&bytes, b"PK\x06\x06", 48, &[1]), &Limits::default(), "zip64");
}

#[test]
fn z5_bytes_around_the_archive_are_refused() {
    let bytes = build(&[Raw::file("a")]);
    refused_bytes(&[b"#!/bin/sh\n", &bytes[..]].concat(), &Limits::default(), "not where");
    refused_bytes(&[&bytes[..], b"tail"].concat(), &Limits::default(), "not a zip archive");
    refused_bytes(b"", &Limits::default(), "not a zip archive");
    refused_bytes(
        b"no zip at all, but longer than the end of one",
        &Limits::default(),
        "not a zip",
    );
}

#[test]
fn z5_every_cut_and_every_flipped_byte_is_an_answer_and_never_a_panic() {
    let bytes = build(&[Raw::folder("dir/"), Raw::zeros("dir/zeros", 3000), Raw::file("b")]);
    let folder = tempfile::tempdir().unwrap();
    for at in 0..bytes.len() {
        assert!(
            archive::check(Cursor::new(&bytes[..at]), &Limits::default()).is_err(),
            "cut at {at}"
        );
        for bit in [1, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= bit;
            let target = folder.path().join("job");
            fs::create_dir(&target).unwrap();
            let refused =
                archive::extract(Cursor::new(flipped), &target, &Limits::default()).is_err();
            assert!(!refused || listing(&target).is_empty(), "flip at {at} left files");
            fs::remove_dir_all(&target).unwrap();
        }
    }
}

// The way of a folder.

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("a/empty")).unwrap();
    fs::write(root.join("a/ümläut.txt"), "text").unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::write(root.join(".hidden"), "").unwrap();
    fs::write(root.join("zeros"), vec![0; 30 * 1024 * 1024]).unwrap();
    fs::write(root.join("noise"), noise(3 * 1024 * 1024)).unwrap();
    make_executable(&root.join("run.sh"));

    let mut zip = tempfile::tempfile().unwrap();
    let mut seen = Vec::new();
    let packed = archive::pack(root, &mut zip, &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(packed.summary, archive::check(&zip, &Limits::default()).unwrap());
    assert_eq!((packed.summary.files, packed.summary.folders), (5, 2));
    let last = seen.last().unwrap();
    assert_eq!(last.done_bytes, last.total_bytes);
    assert_eq!(last.done_bytes, packed.summary.total_bytes);

    let out = tempfile::tempdir().unwrap();
    let summary = archive::extract(&zip, out.path(), &Limits::default()).unwrap();
    assert_eq!(summary, packed.summary);
    assert_eq!(listing(out.path()), listing(root));
    for name in ["a/ümläut.txt", "run.sh", ".hidden", "zeros", "noise"] {
        assert!(fs::read(out.path().join(name)).unwrap() == fs::read(root.join(name)).unwrap());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |name| fs::metadata(out.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("run.sh") & 0o100, mode("zeros") & 0o111), (0o100, 0));
    }
}

#[test]
fn the_same_folder_gives_the_same_digest() {
    let digests = ["first", "second"].map(|order| {
        let folder = tempfile::tempdir().unwrap();
        let mut names = ["b", "a/x", "a.txt", "c"];
        if order == "second" {
            names.reverse();
        }
        fs::create_dir(folder.path().join("a")).unwrap();
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let old = fs::File::options().write(true).open(folder.path().join("b")).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(names[0].len() as u64);
        old.set_modified(time).unwrap();
        let mut zip = tempfile::tempfile().unwrap();
        archive::pack(folder.path(), &mut zip, &mut |_| {}).unwrap().digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[cfg(unix)]
#[test]
fn a_folder_that_other_systems_could_not_hold_is_not_packed() {
    for (names, rule) in
        [(vec!["ab:c"], "colon"), (vec!["x", "X"], "cannot tell"), (vec!["nul"], "device")]
    {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        not_packed(folder.path(), rule);
    }
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_named_and_not_packed() {
    for (target, rule) in [
        ("/etc/passwd", "out of the folder"),
        ("../secret", "out of the folder"),
        ("missing", "link to nothing"),
        ("dir", "link to a folder"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("folder");
        fs::create_dir_all(folder.join("dir")).unwrap();
        fs::write(parent.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(target, folder.join("the-link")).unwrap();
        not_packed(&folder, rule);
        not_packed(&folder, "the-link");
    }
}

#[cfg(unix)]
#[test]
fn a_link_inside_the_folder_is_packed_as_its_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(folder.path().join("lib/real"), "content").unwrap();
    std::os::unix::fs::symlink("lib/real", folder.path().join("link")).unwrap();
    let mut zip = tempfile::tempfile().unwrap();
    archive::pack(folder.path(), &mut zip, &mut |_| {}).unwrap();
    let out = tempfile::tempdir().unwrap();
    archive::extract(&zip, out.path(), &Limits::default()).unwrap();
    assert_eq!(fs::read(out.path().join("link")).unwrap(), b"content");
    assert!(!fs::symlink_metadata(out.path().join("link")).unwrap().is_symlink());
}

#[cfg(unix)]
#[test]
fn a_socket_in_the_folder_is_named_and_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("agent")).unwrap();
    not_packed(folder.path(), "\"agent\": is a device, a pipe or a socket");
}

#[test]
fn archives_of_streaming_writers_are_accepted() {
    let mut writer = zip::ZipWriter::new_stream(Vec::new());
    writer.start_file("a", zip::write::SimpleFileOptions::default()).unwrap();
    writer.write_all(b"content").unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let folder = tempfile::tempdir().unwrap();
    archive::extract(Cursor::new(bytes), folder.path(), &Limits::default()).unwrap();
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"content");
}

#[test]
fn a_folder_that_is_not_empty_is_not_unpacked_into() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine"), "mine").unwrap();
    let bytes = build(&[Raw::file("a")]);
    assert!(archive::extract(Cursor::new(bytes), folder.path(), &Limits::default()).is_err());
    assert_eq!(listing(folder.path()), ["mine"]);
}

/// One entry as it is to stand in the archive, true or not.
#[derive(Clone)]
struct Raw {
    name: Vec<u8>,
    local_name: Option<Vec<u8>>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    unpacked: u64,
    data: Vec<u8>,
    attributes: u32,
    extra: Vec<u8>,
    head: Option<u32>,
    force_large: bool,
}

impl Raw {
    fn file(name: &str) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            local_name: None,
            flags: 1 << 11,
            method: 0,
            crc: 0,
            packed: 0,
            unpacked: 0,
            data: Vec::new(),
            attributes: 0o100_644 << 16,
            extra: Vec::new(),
            head: None,
            force_large: false,
        }
    }

    fn folder(name: &str) -> Self {
        Self { attributes: 0o040_755 << 16 | 0x10, ..Self::file(name) }
    }

    /// A file of zeros, packed as well as deflate can.
    fn zeros(name: &str, size: usize) -> Self {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        writer.start_file("", options).unwrap();
        writer.write_all(&vec![0; size]).unwrap();
        let mut archive = writer.finish_into_readable().unwrap();
        let mut file = archive.by_index_raw(0).unwrap();
        let mut entry = Self::file(name);
        std::io::copy(&mut file, &mut entry.data).unwrap();
        entry.method = 8;
        entry.crc = file.crc32();
        entry.packed = entry.data.len() as u64;
        entry.unpacked = size as u64;
        entry
    }

    fn set_data(&mut self, data: &[u8]) {
        self.data = data.to_vec();
        self.packed = data.len() as u64;
        self.unpacked = data.len() as u64;
        self.crc = crc32(data);
    }

    /// The fields that local head and directory share, and the zip64 field that goes with them.
    fn common(&self, name: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let large = self.force_large || self.packed.max(self.unpacked) >= u64::from(u32::MAX);
        let mut extra = self.extra.clone();
        let [packed, unpacked] = if large {
            let numbers = [self.unpacked.to_le_bytes(), self.packed.to_le_bytes()].concat();
            extra.extend(field(1, &numbers));
            [u32::MAX; 2]
        } else {
            [self.packed, self.unpacked].map(|size| u32::try_from(size).unwrap())
        };
        let mut bytes = Vec::new();
        bytes.extend(20_u16.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0, 0, 0x21, 0]);
        bytes.extend(self.crc.to_le_bytes());
        bytes.extend(packed.to_le_bytes());
        bytes.extend(unpacked.to_le_bytes());
        bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend(u16::try_from(extra.len()).unwrap().to_le_bytes());
        (bytes, extra)
    }
}

fn field(id: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    [&id.to_le_bytes(), &length.to_le_bytes(), content].concat()
}

/// Local heads with data, and the directory with its place.
fn body(entries: &[Raw]) -> (Vec<u8>, u32, u32) {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let head = u32::try_from(bytes.len()).unwrap();
        let name = entry.local_name.as_ref().unwrap_or(&entry.name);
        let (common, extra) = entry.common(name);
        bytes.extend([&b"PK\x03\x04"[..], &common, name, &extra, &entry.data].concat());

        let (common, extra) = entry.common(&entry.name);
        directory.extend([&b"PK\x01\x02\x14\x03"[..], &common, &[0; 6]].concat());
        directory.extend(entry.attributes.to_le_bytes());
        directory.extend(entry.head.unwrap_or(head).to_le_bytes());
        directory.extend([&entry.name[..], &extra].concat());
    }
    let start = u32::try_from(bytes.len()).unwrap();
    let size = u32::try_from(directory.len()).unwrap();
    bytes.extend(directory);
    (bytes, start, size)
}

fn end(count: usize, size: u32, start: u32) -> Vec<u8> {
    let count = u16::try_from(count).unwrap().to_le_bytes();
    let (size, start) = (size.to_le_bytes(), start.to_le_bytes());
    [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &size, &start, &[0; 2]].concat()
}

fn build(entries: &[Raw]) -> Vec<u8> {
    let (mut bytes, start, size) = body(entries);
    bytes.extend(end(entries.len(), size, start));
    bytes
}

/// The same with a zip64 end besides.
fn build64(entries: &[Raw]) -> Vec<u8> {
    let (mut bytes, start, size) = body(entries);
    let at = bytes.len() as u64;
    let count = (entries.len() as u64).to_le_bytes();
    bytes.extend([&b"PK\x06\x06"[..], &44_u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8]].concat());
    bytes.extend(
        [count, count, u64::from(size).to_le_bytes(), u64::from(start).to_le_bytes()].concat(),
    );
    bytes.extend([&b"PK\x06\x07"[..], &[0; 4], &at.to_le_bytes(), &1_u32.to_le_bytes()].concat());
    bytes.extend(end(entries.len(), size, start));
    bytes
}

/// Overwrites bytes behind the first such signature.
fn patch(bytes: &[u8], signature: &[u8; 4], offset: usize, with: &[u8]) -> Vec<u8> {
    let at = bytes.windows(4).position(|window| window == signature).unwrap() + offset;
    let mut patched = bytes.to_vec();
    assert_ne!(&patched[at..at + with.len()], with, "the patch changes nothing");
    patched[at..at + with.len()].copy_from_slice(with);
    patched
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

fn check(entries: &[Raw]) -> Result<archive::Summary, ArchiveError> {
    archive::check(Cursor::new(build(entries)), &Limits::default())
}

fn accepted(entries: &[Raw]) {
    check(entries).unwrap();
    let folder = tempfile::tempdir().unwrap();
    archive::extract(Cursor::new(build(entries)), folder.path(), &Limits::default()).unwrap();
    assert_eq!(listing(folder.path()).len(), entries.len());
}

fn refused(entries: &[Raw], rule: &str) {
    refused_within(entries, &Limits::default(), rule);
}

fn refused_within(entries: &[Raw], limits: &Limits, rule: &str) {
    refused_bytes(&build(entries), limits, rule);
}

/// Refused at submission and at the worker alike, and nothing is written there.
fn refused_bytes(bytes: &[u8], limits: &Limits, rule: &str) {
    let folder = tempfile::tempdir().unwrap();
    let checked = archive::check(Cursor::new(bytes), limits);
    let extracted = archive::extract(Cursor::new(bytes), folder.path(), limits);
    for result in [checked, extracted] {
        match result {
            Err(ArchiveError::Refused(message)) => {
                assert!(message.contains(rule), "{message:?} does not say {rule:?}");
            }
            other => panic!("not refused ({rule}): {other:?}"),
        }
    }
    assert!(listing(folder.path()).is_empty());
}

/// Passes the check, because it lies about its data, and is refused while it is unpacked.
fn late_refusal(entries: &[Raw]) {
    check(entries).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bytes = build(entries);
    match archive::extract(Cursor::new(bytes), folder.path(), &Limits::default()) {
        Err(ArchiveError::Refused(message)) => assert!(message.contains("liar"), "{message}"),
        other => panic!("not refused: {other:?}"),
    }
    assert!(listing(folder.path()).is_empty());
}

fn not_packed(folder: &Path, rule: &str) {
    let mut zip = tempfile::tempfile().unwrap();
    match archive::pack(folder, &mut zip, &mut |_| {}) {
        Err(ArchiveError::Refused(message)) => {
            assert!(message.contains(rule), "{message:?} does not say {rule:?}");
        }
        other => panic!("packed ({rule}): {other:?}"),
    }
}

/// Every path below a folder, sorted; folders end with a slash.
fn listing(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mut name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                name.push('/');
                folders.push(path);
            }
            paths.push(name);
        }
    }
    paths.sort();
    paths
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn make_executable(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = path;
}
