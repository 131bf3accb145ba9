//! Owns the course of the app: clicks, signals and worker news arrive here, effects leave through [`Platform`].

use lull_shared::local::LocalStatus;
use lull_worker::WorkerHandle;
use tokio::sync::mpsc;

use crate::menu::{Click, Tray};

/// What the controller needs from a desktop. Tauri implements it for people, a recorder for tests.
pub trait Platform: Send + 'static {
    /// Draws the tray.
    fn show_tray(&mut self, tray: Tray);
    /// Opens the window, or brings it to the front.
    fn show_window(&mut self);
    /// Tells the page how this PC is.
    fn publish_status(&mut self, status: &LocalStatus);
}

/// What people and the system ask of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The owner pauses or resumes.
    SetPaused(bool),
    /// Somebody wants to see the window.
    OpenWindow,
    /// The app is to end.
    Quit,
}

impl From<Click> for Request {
    fn from(click: Click) -> Self {
        match click {
            Click::Pause => Self::SetPaused(true),
            Click::Resume => Self::SetPaused(false),
            Click::OpenWindow => Self::OpenWindow,
            Click::Quit => Self::Quit,
        }
    }
}

/// The one loop of the app.
#[derive(Debug)]
pub struct Controller<P> {
    platform: P,
    worker: WorkerHandle,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl<P: Platform> Controller<P> {
    /// A controller of this worker that shows things on this desktop.
    pub const fn new(
        platform: P,
        worker: WorkerHandle,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        Self { platform, worker, requests }
    }

    /// Runs until somebody quits. The worker has given back what it held when this returns.
    pub async fn run(mut self) {
        let mut status = self.worker.status();
        status.mark_changed();
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(Request::SetPaused(paused)) => self.worker.set_paused(paused),
                    Some(Request::OpenWindow) => self.platform.show_window(),
                    Some(Request::Quit) | None => break,
                },
                changed = status.changed() => {
                    if changed.is_err() {
                        tracing::error!("the worker ended on its own");
                        break;
                    }
                    let now = status.borrow_and_update().clone();
                    self.platform.show_tray(Tray::for_state(&now));
                    self.platform.publish_status(&now);
                }
            }
        }
        self.worker.stop().await;
    }
}
