//! The lock on a data folder: one coordinator serves it at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use super::StoreError;

/// Held by the server while it runs; the operating system lets go of it when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks a data folder that exists.
    ///
    /// # Errors
    /// [`StoreError::FolderInUse`] while another coordinator holds it, [`StoreError::Unreachable`] when
    /// the folder cannot be written.
    pub fn acquire(data_dir: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join("lock"))
            .map_err(|error| StoreError::Unreachable(error.into()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::FolderInUse(data_dir.display().to_string()))
            }
            Err(TryLockError::Error(error)) => Err(StoreError::Unreachable(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_a_second_coordinator_on_one_data_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(folder.path()).unwrap();

        let second = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(second, StoreError::FolderInUse(_)), "{second:?}");
        assert!(second.to_string().contains("another coordinator is running"), "{second}");

        drop(first);
        FolderLock::acquire(folder.path()).unwrap();
    }
}
