//! The one thread that writes. What waits is written as one group with one sync to disk, and the
//! replies leave after it; when nothing waits, a write is committed at once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    thread,
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// The most writes in one group.
const GROUP_MAX: usize = 500;
/// The most writes that wait; more of them wait in their callers.
const QUEUE_MAX: usize = 4096;
/// Pages in the write-ahead log from which on it is copied back, about 4 MiB.
const CHECKPOINT_PAGES: i32 = 1000;

/// Sends one reply, once it is known whether the group is on disk.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// One write: does its work and gives the reply to send later, and whether its work is to be kept.
type Step = Box<dyn FnOnce(&Connection) -> (Reply, bool) + Send>;

/// Hands writes to the thread.
#[derive(Clone)]
pub(super) struct Writer {
    steps: mpsc::Sender<Step>,
    /// How many writes failed for reasons of the database itself.
    failures: Arc<AtomicU64>,
    /// How many of them a write that worked came after.
    overcome: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn start(mut connection: Connection) -> Result<Self, StoreError> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&log_pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let (steps, queue) = mpsc::channel(QUEUE_MAX);
        thread::Builder::new()
            .name("lull-writer".to_owned())
            .spawn(move || run(&connection, queue, &log_pages))
            .map_err(|error| StoreError::Unreachable(error.into()))?;
        Ok(Self { steps, failures: Arc::default(), overcome: Arc::default() })
    }

    /// Does one write. Its reply means that it is on disk; an error means that it changed nothing.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, reply) = oneshot::channel();
        let step: Step = Box::new(move |connection| {
            let done = work(connection);
            let keep = done.is_ok();
            // Whoever asked may have gone away; the write stands all the same.
            let reply: Reply = Box::new(move |group| {
                drop(sender.send(done.and_then(|value| group.map(|()| value))));
            });
            (reply, keep)
        });
        self.steps.send(step).await.map_err(|_| stopped())?;
        let done = reply.await.map_err(|_| cut_off())?;
        if let Err(StoreError::DiskFull(_) | StoreError::Unreachable(_) | StoreError::Corrupt(_)) =
            &done
        {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    /// Fails unless writing works. After a write that failed one is made to see whether the next will do; otherwise it
    /// is enough that the database lets itself be written.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures == self.overcome.load(Ordering::Relaxed) {
            return self.write(|_| Ok(())).await;
        }
        self.write(|db| Ok(execute(db, "update turns set turn = turn")?)).await?;
        self.overcome.store(failures, Ordering::Relaxed);
        Ok(())
    }
}

fn run(connection: &Connection, mut queue: mpsc::Receiver<Step>, log_pages: &AtomicI32) {
    while let Some(first) = queue.blocking_recv() {
        let mut replies = Vec::new();
        let mut written = write_group(connection, first, &mut queue, &mut replies);
        if written.is_err() && !connection.is_autocommit() {
            written = connection.execute_batch("rollback").and(written);
        }
        let failed = written.err();
        if let Some(error) = &failed {
            tracing::error!(%error, writes = replies.len(), "could not write a group");
        }
        for reply in replies {
            reply(failed.as_ref().map_or(Ok(()), |error| Err(again(error))));
        }
        if log_pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES {
            checkpoint(connection);
            log_pages.store(0, Ordering::Relaxed);
        }
    }
}

/// Writes what waits in one transaction. Each write has a savepoint of its own, so that one which
/// fails takes nothing along.
fn write_group(
    connection: &Connection,
    first: Step,
    queue: &mut mpsc::Receiver<Step>,
    replies: &mut Vec<Reply>,
) -> Result<(), rusqlite::Error> {
    execute(connection, "begin immediate")?;
    let mut next = Some(first);
    while let Some(step) = next {
        write_one(connection, step, replies)?;
        next = if replies.len() < GROUP_MAX { queue.try_recv().ok() } else { None };
    }
    execute(connection, "commit")
}

fn write_one(
    connection: &Connection,
    step: Step,
    replies: &mut Vec<Reply>,
) -> Result<(), rusqlite::Error> {
    execute(connection, "savepoint step")?;
    let done = catch_unwind(AssertUnwindSafe(|| step(connection)));
    let keep = done.is_ok_and(|(reply, keep)| {
        replies.push(reply);
        keep
    });
    // A full disk makes SQLite end the whole transaction by itself.
    if connection.is_autocommit() {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
            Some("the database ended the transaction".to_owned()),
        ));
    }
    if !keep {
        execute(connection, "rollback to step")?;
    }
    execute(connection, "release step")
}

fn execute(connection: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Copies the log back into the database, as far as no reader needs it.
fn checkpoint(connection: &Connection) {
    let done = connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()));
    if let Err(error) = done {
        tracing::warn!(%error, "could not copy the write-ahead log back");
    }
}

/// The same failure for each write of a group.
fn again(error: &rusqlite::Error) -> StoreError {
    let code = error.sqlite_error().copied();
    let copy = code.map(|code| rusqlite::Error::SqliteFailure(code, Some(error.to_string())));
    copy.map_or_else(|| StoreError::Unreachable(error.to_string().into()), StoreError::from)
}

fn cut_off() -> StoreError {
    StoreError::Unreachable("the write was cut off".into())
}

fn stopped() -> StoreError {
    StoreError::Unreachable("the thread that writes has stopped".into())
}
