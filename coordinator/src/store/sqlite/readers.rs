//! A few threads that read, each with a connection of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connection::open_for_reading;
use crate::store::StoreError;

const THREADS: usize = 4;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Hands reads to the threads.
pub(super) struct Readers {
    reads: mpsc::Sender<Read>,
}

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let (reads, queue) = mpsc::channel::<Read>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 1..=THREADS {
            let connection = open_for_reading(path)?;
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("lull-reader-{number}"))
                .spawn(move || run(&connection, &queue))
                .map_err(|error| StoreError::Unreachable(error.into()))?;
        }
        Ok(Self { reads })
    }

    /// Reads, all from one state of the database.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, reply) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            // Whoever asked may have gone away.
            drop(sender.send(in_one_state(connection, work)));
        });
        self.reads.send(read).map_err(|_| stopped())?;
        reply.await.map_err(|_| stopped())?
    }
}

fn run(connection: &Connection, queue: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(read) = next else { return };
        if catch_unwind(AssertUnwindSafe(|| read(connection))).is_err() {
            tracing::error!("a read panicked");
        }
    }
}

fn in_one_state<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // Nothing was written, so ending it by dropping, a rollback, is as good as a commit.
    let transaction = connection.unchecked_transaction()?;
    work(&transaction)
}

fn stopped() -> StoreError {
    StoreError::Unreachable("the threads that read have stopped".into())
}
