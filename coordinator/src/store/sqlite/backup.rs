//! Copies of a database that is in use.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rusqlite::{Connection, OpenFlags, backup::Backup};

use crate::store::StoreError;

/// Copies a database into a new file and gives its size in bytes. Others may go on writing: the copy is the database
/// as it was at one moment. The file appears only when it is whole, checked and on disk.
///
/// # Errors
/// When either cannot be read or written, or the copy is not sound.
pub fn copy(from: &Path, to: &Path) -> Result<u64, StoreError> {
    let unfinished = to.with_extension("unfinished");
    let copied = copy_unfinished(from, &unfinished).and_then(|()| {
        File::open(&unfinished).and_then(|file| file.sync_all()).map_err(io_error)?;
        fs::rename(&unfinished, to).map_err(io_error)?;
        #[cfg(unix)]
        if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error)?;
        }
        Ok(fs::metadata(to).map_err(io_error)?.len())
    });
    if copied.is_err() {
        // What is left of it is of no use; that it is not there is no failure.
        drop(fs::remove_file(&unfinished));
    }
    copied
}

fn copy_unfinished(from: &Path, to: &Path) -> Result<(), StoreError> {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut target = Connection::open(to)?;
    // All in one step, which reads one snapshot: in several, every write in between would begin it anew.
    Backup::new(&source, &mut target)?.step(-1)?;
    target.pragma_update(None, "journal_mode", "delete")?;
    check(&target)
}

/// Fails for a database whose pages do not hang together.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Corrupt(found.into())) }
}

fn io_error(error: io::Error) -> StoreError {
    StoreError::Unreachable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        self,
        conformance::{a_job, submit},
    };

    #[tokio::test]
    async fn a_copy_made_while_others_write_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(folder.path()).unwrap();
        let job = submit(&store, a_job()).await;
        let writing = tokio::spawn({
            let store = store.clone();
            async move {
                for _ in 0..200 {
                    submit(&store, a_job()).await;
                }
            }
        });
        let copy_folder = folder.path().join("copy");
        fs::create_dir(&copy_folder).unwrap();
        let (from, to) = (folder.path().join(store::DATABASE), copy_folder.join(store::DATABASE));

        let bytes = tokio::task::spawn_blocking(move || copy(&from, &to)).await.unwrap().unwrap();

        writing.await.unwrap();
        assert!(bytes > 0);
        let copied = store::open(&copy_folder).unwrap();
        assert_eq!(copied.job(job).await.unwrap().job_id, job);
        assert_eq!(
            fs::read_dir(&copy_folder).unwrap().count(),
            3,
            "the database, its log and index"
        );
    }

    #[test]
    fn a_failed_copy_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("lull.db");
        fs::write(&damaged, "not a database ".repeat(100)).unwrap();
        let failed = copy(&damaged, &folder.path().join("copy.db"));
        assert!(matches!(failed, Err(StoreError::Corrupt(_))), "{failed:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
