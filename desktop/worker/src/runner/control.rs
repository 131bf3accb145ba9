//! Steers a run from outside: suspend, resume, kill.

use std::sync::Arc;

use tokio::sync::watch;

/// Why a run is killed from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// A person cancelled the job.
    Cancelled,
    /// The PC's owner came back and stayed.
    OwnerReturned,
    /// The worker is shutting down.
    WorkerStopping,
    /// The lease is not this worker's any more.
    LeaseLost,
}

/// Steers a run. Clones steer the same run; usable before it starts and after it ended.
#[derive(Clone, Debug)]
pub struct Control {
    wish: Arc<watch::Sender<Wish>>,
}

/// The run's side of a [`Control`].
#[derive(Clone, Debug)]
pub struct Controlled {
    wish: watch::Receiver<Wish>,
}

/// What the outside wants of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Suspend,
    Kill(KillReason),
}

impl Control {
    /// Makes a control and the side to give to [`super::run`].
    #[must_use]
    pub fn new() -> (Self, Controlled) {
        let (sender, wish) = watch::channel(Wish::Run);
        (Self { wish: Arc::new(sender) }, Controlled { wish })
    }

    /// Freezes the run within moments, until [`Control::resume`].
    pub fn suspend(&self) {
        self.change(Wish::Suspend);
    }

    /// Lets a suspended run go on.
    pub fn resume(&self) {
        self.change(Wish::Run);
    }

    /// Ends the run; the first reason counts and nothing undoes it.
    pub fn kill(&self, reason: KillReason) {
        self.change(Wish::Kill(reason));
    }

    fn change(&self, to: Wish) {
        self.wish.send_if_modified(|wish| {
            let changes = !matches!(wish, Wish::Kill(_)) && *wish != to;
            if changes {
                *wish = to;
            }
            changes
        });
    }
}

impl Controlled {
    /// What is wanted now.
    pub(super) fn wish(&mut self) -> Wish {
        *self.wish.borrow_and_update()
    }

    /// Waits until something else is wanted; for ever when nobody is left to want anything.
    pub(super) async fn changed(&mut self) {
        if self.wish.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits while the run is to be suspended.
    pub(super) async fn until_running(&mut self) -> Result<(), KillReason> {
        loop {
            match self.wish() {
                Wish::Run => return Ok(()),
                Wish::Suspend => self.changed().await,
                Wish::Kill(reason) => return Err(reason),
            }
        }
    }
}
