//! What jobs see of `/etc`: a copy of its harmless parts in one folder, because one mount costs a job's start less than
//! one for each part.
//!
//! The copy is made anew when a part has changed. A running job keeps the one that it began with.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};

use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// What of `/etc` programs need to run and to know names, times and certificates.
pub(super) const PARTS: [&str; 24] = [
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki/tls/certs",
    "profile",
    "protocols",
    "python3",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
];
/// Whoever the job is inside; outside it is the worker's own account without any rights of root.
pub(super) const USERS: &[u8] =
    b"root:x:0:0:root:/:/usr/sbin/nologin\njob:x:1000:1000:job:/work:/bin/sh\n";
pub(super) const GROUPS: &[u8] = b"root:x:0:\njob:x:1000:\n";

/// How the folders are called, so that what a crash left is found.
const PREFIX: &str = "lull-etc-";
/// How often the parts are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// A folder that nobody has locked may just be being made.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// The newest copy, made when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Copies {
    newest: Mutex<Option<(Arc<Copy>, Instant)>>,
}

/// A copy; removed when nobody uses it any more.
#[derive(Debug)]
pub(super) struct Copy {
    folder: TempDir,
    /// Says to whoever clears away temporary files that this is in use.
    _lock: File,
    changed: Vec<Option<SystemTime>>,
}

impl Copies {
    /// The copy to use now; none when it cannot be made.
    pub(super) async fn newest(&self) -> Option<Arc<Copy>> {
        let known = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = match known {
            Some((copy, checked)) if checked.elapsed() < CHECK_EVERY && copy.is_there() => {
                return Some(copy);
            }
            known => known.map(|(copy, _)| copy),
        };
        let checked = spawn_blocking(move || match known {
            Some(copy) if copy.is_there() && copy.changed == changes() => Ok(copy),
            Some(_) | None => Copy::shared(),
        });
        let copy = checked.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let copy = copy.inspect_err(|error| tracing::warn!(%error, "/etc is not copied")).ok()?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Some((Arc::clone(&copy), Instant::now()));
        Some(copy)
    }
}

impl Copy {
    /// One that this program has already, or a new one.
    fn shared() -> io::Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Copy>> = Mutex::new(Weak::new());

        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = shared.upgrade()
            && copy.is_there()
            && copy.changed == changes()
        {
            return Ok(copy);
        }
        let copy = Self::make().map(Arc::new)?;
        *shared = Arc::downgrade(&copy);
        Ok(copy)
    }

    fn make() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        remove_stale(&parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = File::open(folder.path())?;
        lock.try_lock()?;
        // A change while it is copied is seen by the next look.
        let changed = changes();
        for part in PARTS {
            let to = folder.path().join(part);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            copy_part(&Path::new("/etc").join(part), &to)?;
        }
        fs::write(folder.path().join("passwd"), USERS)?;
        fs::write(folder.path().join("group"), GROUPS)?;
        Ok(Self { folder, _lock: lock, changed })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn is_there(&self) -> bool {
        self.folder.path().join("group").exists()
    }
}

/// When each part was last changed.
fn changes() -> Vec<Option<SystemTime>> {
    let changed = |part| fs::symlink_metadata(Path::new("/etc").join(part)).ok()?.modified().ok();
    PARTS.map(changed).to_vec()
}

/// Copies a part that is there. A link that leads to programs' own files stays one, any other is followed.
fn copy_part(from: &Path, to: &Path) -> io::Result<()> {
    match fs::canonicalize(from) {
        Ok(target) if target.starts_with("/usr") => copy(from, to),
        Ok(target) => copy(&target, to),
        Err(_) => Ok(()),
    }
}

/// Copies what this account can read; links as they are.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(kind) = fs::symlink_metadata(from).map(|metadata| metadata.file_type()) else {
        return Ok(());
    };
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_file() {
        return match fs::copy(from, to) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            copied => copied.map(drop),
        };
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Removes what programs left that were killed.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let old = |path: &PathBuf| {
        let changed = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE_AFTER))
    };
    let ours = entries.flatten().filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    for path in ours.map(|entry| entry.path()).filter(old) {
        if File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok()) {
            // What cannot be removed does no harm.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_is_kept_until_it_is_gone_and_holds_no_secrets() {
        let copies = Copies::default();
        let first = copies.newest().await.unwrap();
        assert!(Arc::ptr_eq(&first, &copies.newest().await.unwrap()));
        assert_eq!(fs::read(first.path().join("passwd")).unwrap(), USERS);
        assert!(first.path().join("nsswitch.conf").exists());
        for secret in ["shadow", "ssh", "machine-id", "ssl/private", "hostname"] {
            assert!(fs::symlink_metadata(first.path().join(secret)).is_err(), "{secret} is there");
        }
        fs::remove_file(first.path().join("group")).unwrap();
        let second = copies.newest().await.unwrap();
        assert!(second.path().join("group").exists());
    }

    #[test]
    fn links_of_the_system_s_programs_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let (link, other) = (folder.path().join("link"), folder.path().join("other"));
        fs::write(folder.path().join("file"), "text").unwrap();
        symlink("/usr/bin", &link).unwrap();
        symlink(folder.path().join("file"), &other).unwrap();
        copy_part(&link, &folder.path().join("1")).unwrap();
        copy_part(&other, &folder.path().join("2")).unwrap();
        copy_part(&folder.path().join("missing"), &folder.path().join("3")).unwrap();
        assert_eq!(fs::read_link(folder.path().join("1")).unwrap(), Path::new("/usr/bin"));
        assert_eq!(fs::read_to_string(folder.path().join("2")).unwrap(), "text");
        assert!(fs::symlink_metadata(folder.path().join("2")).unwrap().is_file());
    }
}
