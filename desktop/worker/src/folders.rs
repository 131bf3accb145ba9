//! The folders of attempts, used again: to make and remove one costs the disk more than a short job does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::runner;

/// More empty folders are not kept.
const SPARES_MAX: usize = 64;

/// Gives out folders and takes them back.
#[derive(Debug)]
pub(crate) struct JobFolders {
    jobs: PathBuf,
    spares: PathBuf,
    free: Mutex<Vec<PathBuf>>,
    kept: AtomicU64,
}

impl JobFolders {
    /// Puts attempts' folders into `jobs` and empty ones into `spares`, where what an earlier process left is removed.
    pub(crate) fn open(jobs: PathBuf, spares: PathBuf) -> io::Result<Self> {
        runner::remove_folder(&spares)?;
        fs::create_dir_all(&spares)?;
        Ok(Self { jobs, spares, free: Mutex::default(), kept: AtomicU64::new(0) })
    }

    /// Where an attempt's folder is while it runs.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.jobs.join(name)
    }

    /// Makes a folder, or gives an earlier one its name. One that an attempt has already is its own.
    pub(crate) fn make(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let spare = self.free().pop();
        match spare {
            Some(spare) if fs::rename(&spare, folder).is_ok() => Ok(()),
            Some(_) | None => runner::make_folder(folder),
        }
    }

    /// Takes a folder back in which nothing but an empty `work` is left; false when it is to be removed.
    pub(crate) fn take_back(&self, folder: &Path) -> bool {
        if self.free().len() >= SPARES_MAX || !runner::holds_only_work(folder) {
            return false;
        }
        let number = self.kept.fetch_add(1, Ordering::Relaxed);
        let spare = self.spares.join(number.to_string());
        let kept = fs::rename(folder, &spare).is_ok();
        if kept {
            self.free().push(spare);
        }
        kept
    }

    fn free(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_is_used_again_and_any_other_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, spares) = (folder.path().join("jobs"), folder.path().join("spares"));
        fs::create_dir_all(spares.join("left/over")).unwrap();
        let folders = JobFolders::open(jobs.clone(), spares.clone()).unwrap();
        assert_eq!(fs::read_dir(&spares).unwrap().count(), 0);

        let (first, second) = (folders.path("first"), folders.path("second"));
        folders.make(&first).unwrap();
        assert!(!folders.take_back(&first), "it has no folder for the job");
        fs::create_dir(first.join("work")).unwrap();
        fs::write(first.join("work/mark"), "").unwrap();
        fs::write(first.join("outputs.zip"), "").unwrap();
        assert!(!folders.take_back(&first), "there is something besides");
        fs::remove_file(first.join("outputs.zip")).unwrap();
        fs::remove_file(first.join("work/mark")).unwrap();
        assert!(folders.take_back(&first));
        assert_eq!(fs::read_dir(&jobs).unwrap().count(), 0);

        folders.make(&second).unwrap();
        assert!(second.join("work").exists());
        folders.make(&first).unwrap();
        assert!(!first.join("work").exists(), "there was only one");
    }
}
