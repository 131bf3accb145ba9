//! Input files by digest, kept for the next job that wants them, within a size.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use lull_shared::{
    client::{ClientError, hash_file},
    ids::Digest,
    time::Clock,
};

use crate::api::CoordinatorApi;

/// Files that no running job uses go, longest unused first, when all are larger together.
const CACHE_BYTES_MAX: u64 = 10 * 1024 * 1024 * 1024;

/// The folder of input files.
pub(crate) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    /// Whether jobs here can reach the folder: then what is in it is checked at every use.
    within_reach: bool,
    clock: Arc<dyn Clock>,
    /// Files in use, each with the lock under which it is fetched once.
    used: Mutex<HashMap<Digest, Used>>,
}

#[derive(Default)]
struct Used {
    holders: u32,
    fetching: Arc<tokio::sync::Mutex<()>>,
}

/// A file that stays where it is while this lives.
pub(crate) struct Held {
    cache: Arc<Cache>,
    digest: Digest,
}

impl Held {
    /// Where the file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.cache.path(self.digest)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut used = self.cache.used();
        if let Some(entry) = used.get_mut(&self.digest) {
            entry.holders -= 1;
            if entry.holders == 0 {
                used.remove(&self.digest);
            }
        }
    }
}

impl Cache {
    /// Uses a folder; half files of an earlier process are removed from it.
    pub(crate) fn open(
        folder: PathBuf,
        within_reach: bool,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Arc<Self>> {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some() {
                fs::remove_file(path)?;
            }
        }
        let used = Mutex::default();
        Ok(Arc::new(Self { folder, bytes_max: CACHE_BYTES_MAX, within_reach, clock, used }))
    }

    /// The file with this digest, from here or else from the coordinator. Asked for twice at once, it is fetched once.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        digest: Digest,
        api: &dyn CoordinatorApi,
    ) -> Result<Held, ClientError> {
        let fetching = {
            let mut used = self.used();
            let entry = used.entry(digest).or_default();
            entry.holders += 1;
            Arc::clone(&entry.fetching)
        };
        let held = Held { cache: Arc::clone(self), digest };
        let _alone = fetching.lock().await;
        let path = held.path();
        if self.has(&path, digest).await {
            self.touch(&path);
            return Ok(held);
        }
        let unfinished = path.with_extension("part");
        // What is left of a download that was cut off.
        drop(fs::remove_file(&unfinished));
        let size_bytes = api.download(digest, &unfinished).await?;
        fs::rename(&unfinished, &path)
            .map_err(|source| ClientError::File { path: path.clone(), source })?;
        self.touch(&path);
        tracing::debug!(%digest, size_bytes, "input fetched");
        let cache = Arc::clone(self);
        // Nobody waits for the clearing up.
        drop(tokio::task::spawn_blocking(move || cache.prune()));
        Ok(held)
    }

    async fn has(&self, path: &Path, digest: Digest) -> bool {
        if !path.exists() {
            return false;
        }
        if !self.within_reach {
            return true;
        }
        let right = hash_file(path, |_, _| {}).await.is_ok_and(|(found, _)| found == digest);
        if !right {
            tracing::warn!(%digest, "cached input was changed and is fetched again");
            // When it cannot be removed, replacing it says why.
            drop(fs::remove_file(path));
        }
        right
    }

    /// Marks a file as used now.
    fn touch(&self, path: &Path) {
        let millis = u64::try_from(self.clock.now().as_millis()).unwrap_or(0);
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        // At worst it is cleared away sooner.
        let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(now));
    }

    /// What is here, used last first.
    pub(crate) fn newest(&self, count: usize) -> Vec<Digest> {
        let mut files = self.files();
        files.sort_by(|one, other| other.cmp(one));
        let names = files.iter().filter_map(|(_, _, path)| digest_of(path));
        names.take(count).collect()
    }

    /// Every file with its last use and size.
    fn files(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let file = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        };
        entries.filter_map(file).collect()
    }

    /// Removes what was unused longest until the rest fits.
    fn prune(&self) {
        // Held from the listing on: of two at once, the second must not count what the first removed.
        let used = self.used();
        let mut files = self.files();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total <= self.bytes_max {
                return;
            }
            let free = digest_of(&path).is_some_and(|digest| !used.contains_key(&digest));
            if free && fs::remove_file(path).is_ok() {
                total -= size;
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Digest, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose file it is; half a file has a longer name and is nobody's.
fn digest_of(path: &Path) -> Option<Digest> {
    path.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use lull_shared::time::Timestamp;

    use super::*;
    use crate::testing::{Coordinator, Request};

    /// A clock that moves with every look, so that no two uses are at the same time.
    #[derive(Default)]
    struct Ticking(Mutex<i64>);

    impl Clock for Ticking {
        fn now(&self) -> Timestamp {
            let mut millis = self.0.lock().unwrap();
            *millis += 10_000;
            // After every file was written.
            Timestamp::from_millis(4_000_000_000_000 + *millis)
        }
    }

    fn cache(folder: &Path, within_reach: bool, bytes_max: u64) -> Arc<Cache> {
        let cache = Cache::open(folder.to_owned(), within_reach, Arc::<Ticking>::default());
        let cache = Arc::into_inner(cache.unwrap()).unwrap();
        Arc::new(Cache { bytes_max, ..cache })
    }

    fn put(coordinator: &Coordinator, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        coordinator.now().files.insert(digest, bytes.to_vec());
        digest
    }

    #[tokio::test]
    async fn what_was_unused_longest_goes_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::default();
        let cache = cache(folder.path(), false, 10);
        let [old, used, new] = [b"old-1", b"used2", b"new-3"].map(|b| put(&coordinator, b));
        let held = cache.fetch(used, &coordinator).await.unwrap();
        drop(cache.fetch(old, &coordinator).await.unwrap());
        drop(cache.fetch(new, &coordinator).await.unwrap());
        drop(cache.fetch(new, &coordinator).await.unwrap());
        cache.prune();
        assert!(held.path().exists(), "it is in use");
        assert!(!cache.path(old).exists());
        assert!(cache.path(new).exists());
        drop(held);
        assert!(cache.used().is_empty());
    }

    #[tokio::test]
    async fn what_was_used_last_is_named_first() {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::default();
        let cache = cache(folder.path(), false, 100);
        let [one, two, three] = [b"one--", b"two--", b"three"].map(|b| put(&coordinator, b));
        for digest in [one, two, three, one] {
            drop(cache.fetch(digest, &coordinator).await.unwrap());
        }
        fs::write(folder.path().join("half.part"), b"x").unwrap();
        assert_eq!(cache.newest(10), [one, three, two]);
        assert_eq!(cache.newest(2), [one, three]);
    }

    #[tokio::test]
    async fn two_jobs_with_one_input_fetch_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::default();
        let cache = cache(folder.path(), false, 100);
        let digest = put(&coordinator, b"shared");
        let (one, two) =
            tokio::join!(cache.fetch(digest, &coordinator), cache.fetch(digest, &coordinator));
        assert_eq!(fs::read(one.unwrap().path()).unwrap(), b"shared");
        assert!(two.is_ok());
        assert_eq!(coordinator.count(Request::Download), 1);
    }

    #[tokio::test]
    async fn an_input_that_a_job_changed_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::default();
        let cache = cache(folder.path(), true, 100);
        let digest = put(&coordinator, b"right");
        let path = cache.fetch(digest, &coordinator).await.unwrap().path();
        fs::write(&path, b"wrong").unwrap();
        drop(cache.fetch(digest, &coordinator).await.unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"right");
    }
}
