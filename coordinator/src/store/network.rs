//! Whether a folder lies on a file system of the network. SQLite's locks and its write-ahead log are not safe there.

use std::path::Path;

/// Kinds of file systems whose files another machine holds.
#[cfg(any(target_os = "linux", test))]
const REMOTE: [&str; 16] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "gfs2",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
];

/// The kind of network file system that a folder lies on; none for a disk of this machine, and where it cannot be told.
#[must_use]
pub fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    #[cfg(target_os = "linux")]
    {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let kind = kind_of(&mounts, &folder)?;
        REMOTE.contains(&kind).then(|| kind.to_owned())
    }
    #[cfg(windows)]
    {
        use std::path::{Component, Prefix};
        match folder.components().next() {
            Some(Component::Prefix(prefix)) => {
                let share = matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..));
                share.then(|| "a network share".to_owned())
            }
            Some(_) | None => None,
        }
    }
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        drop(folder);
        None
    }
}

/// The kind of the file system that holds a folder, by the kernel's list of mounts.
#[cfg(any(target_os = "linux", test))]
fn kind_of<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mut found: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (mount.split(' ').nth(4), kind.split(' ').next()) else {
            continue;
        };
        let point = unescaped(point);
        let depth = Path::new(&point).components().count();
        // Of several mounts on one folder the last one is seen.
        if folder.starts_with(&point) && found.is_none_or(|(deepest, _)| deepest <= depth) {
            found = Some((depth, kind));
        }
    }
    found.map(|(_, kind)| kind)
}

/// The kernel writes a space in a folder's name as `\040`.
#[cfg(any(target_os = "linux", test))]
fn unescaped(point: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(point.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /srv rw shared:2 - ext4 /dev/sdb1 rw
41 40 0:36 / /srv/share rw - nfs4 nas:/pool rw,vers=4.2
42 41 0:37 / /srv/share/local rw master:3 propagate_from:2 - ext4 /dev/sdc1 rw
43 22 0:38 / /mnt/my\\040files rw - cifs //nas/files rw
44 22 0:39 / /mnt/twice rw - nfs nas:/a rw
45 22 0:40 / /mnt/twice rw - ext4 /dev/sdd1 rw
a line of another kind";

    #[test]
    fn c1_the_deepest_mount_tells_what_a_folder_lies_on() {
        for (folder, kind) in [
            ("/var/lib/lull", "ext4"),
            ("/srv/lull", "ext4"),
            ("/srv/share", "nfs4"),
            ("/srv/share/lull", "nfs4"),
            ("/srv/shared", "ext4"),
            ("/srv/share/local/lull", "ext4"),
            ("/mnt/my files/lull", "cifs"),
            ("/mnt/twice/lull", "ext4"),
        ] {
            assert_eq!(kind_of(MOUNTS, Path::new(folder)), Some(kind), "{folder}");
        }
        assert_eq!(kind_of("", Path::new("/srv")), None);
        assert!(REMOTE.contains(&"nfs4") && REMOTE.contains(&"cifs") && !REMOTE.contains(&"ext4"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn c1_a_disk_of_this_machine_is_no_network() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(kind_of(&mounts, Path::new("/proc/self")).is_some_and(|kind| kind == "proc"));
        assert_eq!(file_system(Path::new("/proc")), None);
        assert_eq!(file_system(Path::new("/there/is/no/such/folder")), None);
    }
}
