//! What ran on this PC, for its owner to read without any server: `history.db`.

use std::{
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lull_shared::{
    jobs::{AttemptEnding, LeaseKey},
    local::{LocalAttempt, LocalHistory},
    time::Timestamp,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use tokio::sync::oneshot;

/// The oldest rows go when there are more.
const ROWS_MAX: u32 = 10_000;
/// How often the oldest are looked for, in attempts.
const PRUNE_EVERY: u32 = 500;
/// What is to be written waits this long for company.
const GATHER: Duration = Duration::from_millis(100);
/// The schema, and the number it is known by.
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    create table attempts (
        id integer primary key,
        job_id text not null,
        attempt integer not null,
        name text not null,
        command text not null,
        submitted_by text not null,
        started_at integer not null,
        ended_at integer,
        ending text,
        exit_code integer,
        error_message text,
        unique (job_id, attempt)
    ) strict;
    create index attempts_running on attempts (id) where ended_at is null;
";

/// The history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The database refused.
    #[error("could not use the history of this PC")]
    Database(#[from] rusqlite::Error),
    /// It was written by a later version of Lull.
    #[error("the history was written by a later version of Lull; install that version again")]
    Newer,
    /// The worker ended meanwhile.
    #[error("the worker has stopped")]
    Stopped,
}

/// How an attempt ended, as far as this PC knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) at: Timestamp,
    pub(crate) ending: AttemptEnding,
    pub(crate) exit_code: Option<i32>,
    pub(crate) error_message: Option<String>,
}

type Work = Box<dyn FnOnce(&Connection) + Send>;

/// What the thread is asked for.
enum Order {
    /// Write, soon.
    Soon(Work),
    /// Write at once, with all that waits, and say when a crash of this program cannot take it away any more.
    Now(Work, oneshot::Sender<()>),
}

/// Ends when what was noted is written.
#[derive(Debug)]
pub(crate) struct Written(oneshot::Receiver<()>);

impl Written {
    /// Returns when it is written, or cannot be: the log says so then, and a job goes on without its row.
    pub(crate) async fn wait(self) {
        #[cfg(not(test))]
        let _ = self.0.await;
        // A test's clock jumps when all it knows of waits; what it knows of it stands still for.
        #[cfg(test)]
        let _ = tokio::task::spawn_blocking(move || self.0.blocking_recv()).await;
    }
}

/// The history, open for writing. One thread owns the database, so nobody waits for the disk but who asks.
#[derive(Clone, Debug)]
pub(crate) struct History {
    orders: mpsc::Sender<Order>,
}

impl History {
    /// Opens the database, making it when it is not there. A damaged one is put aside: it must not keep the PC
    /// from working.
    pub(crate) fn open(path: &Path) -> Result<Self, HistoryError> {
        let connection = match open_for_writing(path) {
            Err(HistoryError::Database(error)) if is_damage(&error) => {
                tracing::warn!(error = %error, "history is damaged and begins anew");
                // When it cannot be put aside, opening it again says why.
                let _ = std::fs::rename(path, path.with_extension("db.damaged"));
                open_for_writing(path)?
            }
            opened => opened?,
        };
        let (orders, inbox) = mpsc::channel();
        // Ends when the last handle is gone.
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || work_off(&connection, &inbox))
            .expect("the system can start a thread");
        Ok(Self { orders })
    }

    /// An attempt begins here. Its result must not go out before this is written: whatever ran on a PC is known there.
    pub(crate) fn started(&self, attempt: LocalAttempt) -> Written {
        let (done, written) = oneshot::channel();
        let work = logged(move |db| {
            db.prepare_cached(
                "insert into attempts (job_id, attempt, name, command, submitted_by, started_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6) on conflict do nothing",
            )?
            .execute(params![
                attempt.job_id.to_string(),
                attempt.attempt,
                attempt.name,
                attempt.command,
                attempt.submitted_by,
                attempt.started_at.as_millis(),
            ])?;
            let id = db.last_insert_rowid();
            if id % i64::from(PRUNE_EVERY) == 0 {
                db.execute("delete from attempts where id <= ?1", [id - i64::from(ROWS_MAX)])?;
            }
            Ok(())
        });
        self.order(Order::Now(work, done));
        Written(written)
    }

    /// An attempt ended here. What was said first stays.
    pub(crate) fn ended(&self, key: LeaseKey, ended: Ended) {
        self.soon(move |db| {
            db.prepare_cached(
                "update attempts set ended_at = ?3, ending = ?4, exit_code = ?5, error_message = ?6
                 where job_id = ?1 and attempt = ?2 and ended_at is null",
            )?
            .execute(params![
                key.job_id.to_string(),
                key.attempt,
                ended.at.as_millis(),
                ended.ending.name(),
                ended.exit_code,
                ended.error_message,
            ])?;
            Ok(())
        });
    }

    /// At start: whatever still counts as running was cut off when the worker ended.
    pub(crate) fn close_open_rows(&self, at: Timestamp) {
        self.soon(move |db| {
            db.execute(
                "update attempts set ended_at = ?1, ending = ?2,
                 error_message = 'the worker was restarted' where ended_at is null",
                params![at.as_millis(), AttemptEnding::GivenBack.name()],
            )?;
            Ok(())
        });
    }

    /// What ran here, newest first.
    pub(crate) async fn newest(&self, limit: u32) -> Result<LocalHistory, HistoryError> {
        self.now(move |db| read_newest(db, limit)).await?
    }

    /// Returns when everything is written.
    pub(crate) async fn flush(&self) -> Result<(), HistoryError> {
        self.now(|_| ()).await
    }

    async fn now<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, HistoryError> {
        let (reply, value) = oneshot::channel();
        let (done, written) = oneshot::channel();
        self.order(Order::Now(Box::new(move |db| drop(reply.send(work(db)))), done));
        written.await.map_err(|_| HistoryError::Stopped)?;
        value.await.map_err(|_| HistoryError::Stopped)
    }

    fn soon(&self, work: impl FnOnce(&Connection) -> Result<(), rusqlite::Error> + Send + 'static) {
        self.order(Order::Soon(logged(work)));
    }

    fn order(&self, order: Order) {
        // The thread lives as long as a handle does.
        let _ = self.orders.send(order);
    }
}

fn logged(work: impl FnOnce(&Connection) -> Result<(), rusqlite::Error> + Send + 'static) -> Work {
    Box::new(move |db| {
        if let Err(error) = work(db) {
            tracing::warn!(error = %error, "history was not written");
        }
    })
}

/// Does what is asked for until nobody is left to ask. The ends of attempts wait a moment for company, short jobs come
/// by the hundred; a beginning takes along all that waits.
fn work_off(db: &Connection, inbox: &mpsc::Receiver<Order>) {
    while let Ok(first) = inbox.recv() {
        let until = Instant::now() + GATHER;
        let mut next = Some(first);
        let mut writes = Vec::new();
        let mut waiting = Vec::new();
        while let Some(order) = next {
            match order {
                Order::Soon(work) => writes.push(work),
                Order::Now(work, done) => {
                    writes.push(work);
                    waiting.push(done);
                }
            }
            next = if waiting.is_empty() {
                inbox.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
            } else {
                inbox.try_recv().ok()
            };
        }
        if let Err(error) = write_together(db, writes) {
            tracing::warn!(error = %error, "history was not written");
        }
        for done in waiting {
            // Whoever asked may be gone.
            let _ = done.send(());
        }
    }
}

fn write_together(db: &Connection, writes: Vec<Work>) -> Result<(), rusqlite::Error> {
    db.execute_batch("begin immediate")?;
    for work in writes {
        work(db);
    }
    db.execute_batch("commit")
}

/// Reads the history of a data folder, also while its worker runs.
///
/// # Errors
///
/// When there is a database and it cannot be read. None at all is an empty history.
pub fn read(path: &Path, limit: u32) -> Result<LocalHistory, HistoryError> {
    if !path.exists() {
        return Ok(LocalHistory::default());
    }
    let connection = Connection::open(path)?;
    check_version(&connection)?;
    read_newest(&connection, limit)
}

fn open_for_writing(path: &Path) -> Result<Connection, HistoryError> {
    let mut connection = Connection::open(path)?;
    // A row lost in a power cut costs nobody a job: the spool is what must not lose one.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "normal")?;
    if check_version(&connection)? == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()?;
    }
    Ok(connection)
}

fn check_version(connection: &Connection) -> Result<i64, HistoryError> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let version = connection
        .query_row("select user_version from pragma_user_version", [], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    if version > SCHEMA_VERSION { Err(HistoryError::Newer) } else { Ok(version) }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn read_newest(db: &Connection, limit: u32) -> Result<LocalHistory, HistoryError> {
    let mut rows = db.prepare_cached(
        "select job_id, attempt, name, command, submitted_by, started_at, ended_at, ending, exit_code,
                error_message
         from attempts order by id desc limit ?1",
    )?;
    let attempts = rows.query_map([limit], |row| {
        Ok(LocalAttempt {
            job_id: row.get::<_, String>(0)?.parse().map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    0,
                    rusqlite::types::Type::Text,
                    Box::new(error),
                )
            })?,
            attempt: row.get(1)?,
            name: row.get(2)?,
            command: row.get(3)?,
            submitted_by: row.get(4)?,
            started_at: Timestamp::from_millis(row.get(5)?),
            ended_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
            ending: row
                .get::<_, Option<String>>(7)?
                .and_then(|name| AttemptEnding::from_name(&name)),
            exit_code: row.get(8)?,
            error_message: row.get(9)?,
        })
    })?;
    Ok(LocalHistory { attempts: attempts.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use lull_shared::ids::JobId;

    use super::*;

    #[tokio::test]
    async fn the_newest_come_first_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        let (first, second) = (attempt("first"), attempt("second"));

        let history = History::open(&path).unwrap();
        drop(history.started(first.clone()));
        drop(history.started(second.clone()));
        history.ended(key(&first), ended(AttemptEnding::CommandFailed, Some(3)));
        history.ended(key(&first), ended(AttemptEnding::Succeeded, Some(0)));
        let rows = history.newest(10).await.unwrap().attempts;
        assert_eq!(rows[0], second);
        assert_eq!(
            (rows[1].ending, rows[1].exit_code),
            (Some(AttemptEnding::CommandFailed), Some(3))
        );
        assert_eq!(history.newest(1).await.unwrap().attempts.len(), 1);
        drop(history);

        let history = History::open(&path).unwrap();
        history.close_open_rows(Timestamp::from_millis(9));
        let rows = history.newest(10).await.unwrap().attempts;
        assert_eq!(rows[0].ending, Some(AttemptEnding::GivenBack));
        assert_eq!(rows[1].ending, Some(AttemptEnding::CommandFailed));
        assert_eq!(read(&path, 10).unwrap().attempts, rows);
    }

    #[tokio::test]
    async fn a_beginning_is_on_disk_when_it_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        let history = History::open(&path).unwrap();
        let (first, second) = (attempt("first"), attempt("second"));
        history.started(first.clone()).wait().await;
        assert_eq!(read(&path, 10).unwrap().attempts, std::slice::from_ref(&first));
        history.ended(key(&first), ended(AttemptEnding::Succeeded, Some(0)));
        history.started(second).wait().await;
        assert_eq!(read(&path, 10).unwrap().attempts[1].ending, Some(AttemptEnding::Succeeded));
    }

    #[tokio::test]
    async fn a_damaged_history_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        let history = History::open(&path).unwrap();
        drop(history.started(attempt("after the damage")));
        assert_eq!(history.newest(10).await.unwrap().attempts.len(), 1);
    }

    #[test]
    fn a_history_of_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        let later = Connection::open(&path).unwrap();
        later.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        assert!(matches!(History::open(&path), Err(HistoryError::Newer)));
        assert!(matches!(read(&path, 1), Err(HistoryError::Newer)));
    }

    #[test]
    fn no_history_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join("history.db"), 5).unwrap(), LocalHistory::default());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "reading makes no file");
    }

    fn attempt(name: &str) -> LocalAttempt {
        LocalAttempt {
            job_id: JobId::generate(),
            attempt: 1,
            name: name.to_owned(),
            command: "true".to_owned(),
            submitted_by: "ana".to_owned(),
            started_at: Timestamp::from_millis(5),
            ended_at: None,
            ending: None,
            exit_code: None,
            error_message: None,
        }
    }

    const fn key(attempt: &LocalAttempt) -> LeaseKey {
        LeaseKey { job_id: attempt.job_id, attempt: attempt.attempt }
    }

    const fn ended(ending: AttemptEnding, exit_code: Option<i32>) -> Ended {
        Ended { at: Timestamp::from_millis(7), ending, exit_code, error_message: None }
    }
}
