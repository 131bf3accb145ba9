//! The controller with a real worker and a desktop that only writes down what it is told.

use std::sync::{Arc, Mutex};

use lull_desktop::{
    controller::{Controller, Platform, Request},
    menu::{Icon, Tray},
};
use lull_shared::local::LocalStatus;
use lull_worker::{Worker, WorkerConfig, WorkerHandle};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::desk::eventually;

#[derive(Clone, Debug, PartialEq)]
enum Shown {
    Tray(Tray),
    Window,
    Status(LocalStatus),
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Shown>>>);

impl Platform for Recorder {
    fn show_tray(&mut self, tray: Tray) {
        self.0.lock().unwrap().push(Shown::Tray(tray));
    }

    fn show_window(&mut self) {
        self.0.lock().unwrap().push(Shown::Window);
    }

    fn publish_status(&mut self, status: &LocalStatus) {
        self.0.lock().unwrap().push(Shown::Status(status.clone()));
    }
}

impl Recorder {
    async fn shows(&self, what: &str, wanted: impl Fn(&Shown) -> bool) {
        eventually(what, async || self.0.lock().unwrap().iter().any(&wanted).then_some(())).await;
    }
}

struct Running {
    shown: Recorder,
    requests: mpsc::UnboundedSender<Request>,
    worker: WorkerHandle,
    controller: JoinHandle<()>,
    _data: TempDir,
}

async fn start() -> Running {
    let data = tempfile::tempdir().unwrap();
    let worker = Worker::start(WorkerConfig::new(data.path().to_owned())).await.unwrap();
    let (requests, inbox) = mpsc::unbounded_channel();
    let shown = Recorder::default();
    let controller = Controller::new(shown.clone(), worker.clone(), inbox);
    let controller = tokio::spawn(controller.run());
    Running { shown, requests, worker, controller, _data: data }
}

#[tokio::test]
async fn the_tray_shows_the_state_before_anybody_asks() {
    let app = start().await;
    let not_joined =
        |shown: &Shown| matches!(shown, Shown::Tray(tray) if tray.icon == Icon::NotJoined);
    app.shown.shows("the icon of a PC in no pool", not_joined).await;
}

#[tokio::test]
async fn a_pause_reaches_the_worker_and_the_page_hears_of_it() {
    let app = start().await;
    app.requests.send(Request::SetPaused(true)).unwrap();
    let paused = |shown: &Shown| matches!(shown, Shown::Status(status) if status.paused);
    app.shown.shows("a paused PC", paused).await;
    assert!(app.worker.status().borrow().paused);

    app.requests.send(Request::OpenWindow).unwrap();
    app.shown.shows("the window", |shown| *shown == Shown::Window).await;
}

#[tokio::test]
async fn quitting_stops_the_worker_first() {
    let app = start().await;
    app.requests.send(Request::Quit).unwrap();
    app.controller.await.unwrap();
    let mut status = app.worker.status();
    status.mark_unchanged();
    assert!(status.changed().await.is_err(), "the worker has ended");
}
