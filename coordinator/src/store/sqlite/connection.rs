//! Opening the database file: settings of a connection, migrations, and errors in the store's words.

use std::{path::Path, time::Duration};

use refinery::Runner;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

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
/// How much of the database the connection that writes keeps at hand, in KiB.
const CACHE_KIB: i64 = 32 * 1024;
/// Room for all statements of the store.
const STATEMENTS_MAX: usize = 128;

/// Opens the connection that writes, making or upgrading the database as needed.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    prepare(&connection)?;
    let runner = embedded::migrations::runner();
    // Before anything is written: what is not ours to change stays as it is.
    refuse_foreign(&connection, &runner)?;
    // Replies leave after a commit, so a commit must be on the platter: NORMAL loses acknowledged rows
    // when the power fails. macOS needs a call of its own for that.
    connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", SYNCHRONOUS)?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // The writer checkpoints by itself, after the replies have left.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    migrate(&mut connection, path, &runner)?;
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
    // Plans do not depend on what is bound: a statement would be prepared again for every new value otherwise.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What a step of a group would undo is remembered here and not in a file.
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(())
}

/// The newest schema that the migrations lead to.
fn newest(runner: &Runner) -> i32 {
    runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0)
}

/// Refuses the database of a newer version and that of another program.
fn refuse_foreign(connection: &Connection, runner: &Runner) -> Result<(), StoreError> {
    let (found, known) = (schema_version(connection)?, newest(runner));
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    if found == 0 {
        let tables = "select count(*) from sqlite_schema where name not like 'refinery%' and name not like 'sqlite%'";
        let tables: u32 = connection.query_row(tables, [], |row| row.get(0))?;
        if tables > 0 {
            return Err(StoreError::Corrupt("it is the database of another program".into()));
        }
    }
    Ok(())
}

/// Brings the schema up to date. An older database is checked and copied first, so that there is a way back.
fn migrate(connection: &mut Connection, path: &Path, runner: &Runner) -> Result<(), StoreError> {
    let (found, known) = (schema_version(connection)?, newest(runner));
    if found > 0 && found < known {
        backup::check(connection)?;
        let copy = path.with_extension(format!("schema-{found}.db"));
        if !copy.exists() {
            backup::copy(path, &copy)?;
            tracing::info!(path = %copy.display(), "database copied before its upgrade");
        }
    }
    if found < known {
        runner.run(connection).map_err(|error| StoreError::UpgradeFailed(error.into()))?;
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
        // What a newer version may have chosen differently stays as it chose.
        connection.pragma_update(None, "journal_mode", "delete").unwrap();
        let newer = "insert into refinery_schema_history (version, name, applied_on, checksum)
                     select max(version) + 1, 'later', applied_on, '1' from refinery_schema_history";
        connection.execute(newer, []).unwrap();
        drop(connection);
        let before = std::fs::read(&path).unwrap();

        let error = open_for_writing(&path).unwrap_err();

        assert!(matches!(error, StoreError::NewerSchema { .. }), "{error:?}");
        assert!(error.to_string().contains("start the newer version"), "{error}");
        assert!(std::fs::read(&path).unwrap() == before, "nothing was changed");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn c2_a_database_of_another_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lull.db");
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch("create table songs (title text); insert into songs values ('a')")
            .unwrap();
        drop(other);
        let before = std::fs::read(&path).unwrap();

        let error = open_for_writing(&path).unwrap_err();

        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
        assert!(std::fs::read(&path).unwrap() == before, "nothing was changed");
    }

    /// The migrations there are and one more.
    fn with_later(sql: &str) -> Runner {
        let mut migrations = embedded::migrations::runner().get_migrations().clone();
        let version = newest(&embedded::migrations::runner()) + 1;
        migrations
            .push(refinery::Migration::unapplied(&format!("V{version}__later"), sql).unwrap());
        Runner::new(&migrations)
    }

    #[test]
    fn c2_an_upgrade_leaves_a_copy_from_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lull.db");
        let mut connection = open_for_writing(&path).unwrap();
        let was = schema_version(&connection).unwrap();

        migrate(&mut connection, &path, &with_later("create table later (x)")).unwrap();

        assert_eq!(schema_version(&connection).unwrap(), was + 1);
        let copy = Connection::open(folder.path().join(format!("lull.schema-{was}.db"))).unwrap();
        assert_eq!(schema_version(&copy).unwrap(), was);
        backup::check(&copy).unwrap();
    }

    #[test]
    fn c2_an_upgrade_that_fails_half_way_leaves_the_database_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lull.db");
        let mut connection = open_for_writing(&path).unwrap();
        let was = schema_version(&connection).unwrap();

        let broken = with_later("create table half (x); create table jobs (x)");
        let error = migrate(&mut connection, &path, &broken).unwrap_err();

        assert!(matches!(error, StoreError::UpgradeFailed(_)), "{error:?}");
        assert!(!connection.table_exists(None, "half").unwrap());
        drop(connection);
        assert_eq!(schema_version(&open_for_writing(&path).unwrap()).unwrap(), was);
    }

    #[test]
    fn c2_a_damaged_database_is_not_upgraded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lull.db");
        drop(open_for_writing(&path).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        // The pages of tables, from the fourth on; the schema itself can still be read.
        let page = 4096;
        for byte in bytes.iter_mut().skip(page * 20) {
            *byte = 0x5a;
        }
        std::fs::write(&path, &bytes).unwrap();
        let mut connection = Connection::open(&path).unwrap();

        let error = migrate(&mut connection, &path, &with_later("create table later (x)"));

        assert!(matches!(error, Err(StoreError::Corrupt(_))), "{error:?}");
        assert!(std::fs::read(&path).unwrap() == bytes, "nothing was changed");
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
