//! Opening the database file: settings of a connection, migrations, and errors in the store's words.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::backup;
use crate::store::StoreError;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// How long a write waits for another process, such as a subcommand, to end its own.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// When SQLite waits for the disk: at every commit.
#[cfg(not(feature = "fault-unsynced"))]
const SYNCHRONOUS: &str = "full";
/// A fault for tests that must find it: commits stay in the log until it is copied back.
#[cfg(feature = "fault-unsynced")]
const SYNCHRONOUS: &str = "normal";
/// Room for all statements of the store.
const STATEMENTS_MAX: usize = 128;

/// Opens the connection that writes, making or upgrading the database as needed.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    prepare(&connection)?;
    // Replies leave after a commit, so a commit must be on the platter: NORMAL loses acknowledged rows
    // when the power fails. macOS needs a call of its own for that.
    connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", SYNCHRONOUS)?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // The writer checkpoints by itself, after the replies have left.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens a connection that only reads. The database must exist.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Brings the schema up to date. An older database is checked and copied first, so that there is a way back.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let runner = embedded::migrations::runner();
    let known = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    let found = schema_version(connection)?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    if found > 0 && found < known {
        backup::check(connection)?;
        let copy = path.with_extension(format!("schema-{found}.db"));
        if !copy.exists() {
            backup::copy(path, &copy)?;
            tracing::info!(path = %copy.display(), "database copied before its upgrade");
        }
    }
    if found < known {
        runner.run(connection).map_err(|error| StoreError::Unreachable(error.into()))?;
    }
    Ok(())
}

/// The last migration that was applied; 0 for a new database.
fn schema_version(connection: &Connection) -> Result<i32, StoreError> {
    if !connection.table_exists(None, "refinery_schema_history")? {
        return Ok(0);
    }
    let version = connection.query_row(
        "select coalesce(max(version), 0) from refinery_schema_history",
        [],
        |row| row.get(0),
    )?;
    Ok(version)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..) = error
        {
            return Self::Corrupt(error.into());
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.into())
            }
            Some(_) | None => Self::Unreachable(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_a_database_of_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lull.db");
        let connection = open_for_writing(&path).unwrap();
        let newer = "insert into refinery_schema_history (version, name, applied_on, checksum)
                     select max(version) + 1, 'later', applied_on, '1' from refinery_schema_history";
        connection.execute(newer, []).unwrap();
        drop(connection);

        let error = open_for_writing(&path).unwrap_err();

        assert!(matches!(error, StoreError::NewerSchema { .. }), "{error:?}");
        assert!(error.to_string().contains("start the newer version"), "{error}");
    }

    #[test]
    fn c2_a_file_that_is_not_a_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lull.db");
        std::fs::write(&path, "this is not a database, whatever its name says ".repeat(100))
            .unwrap();

        let error = open_for_writing(&path).unwrap_err();

        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    }

    #[test]
    fn a_commit_is_on_disk_and_references_hold() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_for_writing(&folder.path().join("lull.db")).unwrap();
        let setting = |name: &str| {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .unwrap()
        };
        assert_eq!(setting("journal_mode"), "wal".to_owned().into());
        assert_eq!(setting("synchronous"), 2.into());
        assert_eq!(setting("foreign_keys"), 1.into());
    }

    #[test]
    fn a_database_is_opened_again_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lull.db");
        drop(open_for_writing(&path).unwrap());
        let connection = open_for_writing(&path).unwrap();
        assert_eq!(schema_version(&connection).unwrap(), 1);
    }
}
