//! Starting a worker, and what the program around it may ask of it.

use std::path::PathBuf;

use lull_shared::local::{LocalHistory, LocalStatus};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::WorkerConfig,
    history::HistoryError,
    identity::{JoinError, Membership},
    worker_loop::Command,
};

/// A worker that is to be started.
#[derive(Debug)]
pub struct Worker;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another worker uses the same data folder.
    #[error("another worker already runs with the data folder {}", path.display())]
    AlreadyRunning {
        /// The folder.
        path: PathBuf,
    },
    /// The data folder cannot be used.
    #[error("could not use {}", path.display())]
    DataFolder {
        /// Which part of it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The identity file is damaged.
    #[error("{} is damaged: {reason}; delete it to join again", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The history cannot be opened.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// A running worker. Cheap to clone; the worker ends when it is told to or when the last handle is gone.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<LocalStatus>,
    membership: watch::Receiver<Option<Membership>>,
}

impl WorkerHandle {
    /// How the worker is, now and whenever it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<LocalStatus> {
        self.status.clone()
    }

    /// The pool this PC is part of, if any: where a window finds the coordinator and its CA.
    #[must_use]
    pub fn membership(&self) -> Option<Membership> {
        self.membership.borrow().clone()
    }

    /// The owner's pause: running jobs freeze at once, and move to another PC after ten minutes. Kept over restarts.
    pub fn set_paused(&self, paused: bool) {
        // A worker that has stopped takes no work: paused already.
        let _ = self.commands.send(Command::SetPaused(paused));
    }

    /// Makes this PC part of the pool that the code belongs to, instead of any it was part of before.
    ///
    /// # Errors
    ///
    /// When the code cannot be read, nobody or the wrong coordinator answers, or it refuses the code.
    pub async fn join(&self, code: &str) -> Result<LocalStatus, JoinError> {
        let (reply, joined) = oneshot::channel();
        self.commands
            .send(Command::Join { code: code.to_owned().into(), reply })
            .map_err(|_| JoinError::Stopped)?;
        joined.await.map_err(|_| JoinError::Stopped)??;
        Ok(self.status.borrow().clone())
    }

    /// What ran here, newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn history(&self, limit: u32) -> Result<LocalHistory, HistoryError> {
        let (reply, rows) = oneshot::channel();
        self.commands.send(Command::History { limit, reply }).map_err(|_| HistoryError::Stopped)?;
        rows.await.map_err(|_| HistoryError::Stopped)?
    }

    /// Ends the worker: kills what runs, gives it back to the coordinator, says goodbye. At most ten seconds.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
        self.commands.closed().await;
    }
}

impl Worker {
    /// Starts a worker on the current tokio runtime. Works without being joined to a pool, too: then it waits
    /// for [`WorkerHandle::join`].
    ///
    /// # Errors
    ///
    /// When the data folder cannot be used or another worker uses it.
    pub async fn start(config: WorkerConfig) -> Result<WorkerHandle, StartError> {
        crate::worker_loop::start(config).await
    }
}

impl WorkerHandle {
    /// Ends the worker without a word to anybody, as a power cut would.
    #[cfg(test)]
    pub(crate) async fn break_off(&self) {
        let _ = self.commands.send(Command::BreakOff);
        self.commands.closed().await;
    }

    pub(crate) const fn new(
        commands: mpsc::UnboundedSender<Command>,
        status: watch::Receiver<LocalStatus>,
        membership: watch::Receiver<Option<Membership>>,
    ) -> Self {
        Self { commands, status, membership }
    }
}
