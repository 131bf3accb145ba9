//! The whole worker against a played coordinator, in a sandbox without processes, on a clock that jumps.

use std::{fs, io::Write as _};

use lull_shared::{
    credentials::{JoinCode, SpkiPin},
    ids::Digest,
    jobs::{Assignment, AttemptEnding, FailureKind, Network, OnOwnerReturn},
    local::Connection,
    output::Stream,
    problem::ProblemKind,
    time::SystemClock,
    workers::{HeartbeatReply, SandboxLevel, SuspendReason, WorkerState},
};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::start::{Ground, start_on};
use crate::{
    JoinError, Labels, StartError, WorkerConfig, WorkerHandle,
    sandbox::Program,
    spool::file_stem,
    testing::{
        Coordinator, Failure, Pc, Request, eventually, job,
        sandbox::{FakeSandbox, Seen},
    },
};

use jobs::put_zip;

mod ahead;
mod ends;
mod jobs;
mod joining;
mod owner;
#[cfg(target_os = "linux")]
mod speed;
mod together;

/// A worker of a pool, and everything around it.
struct Stage {
    folder: TempDir,
    coordinator: Coordinator,
    sandbox: FakeSandbox,
    pc: Pc,
    worker: WorkerHandle,
}

impl Stage {
    /// A worker that has joined and minds nobody.
    async fn always() -> Self {
        Self::set(true, 2).await
    }

    /// A worker on a PC with an owner who has been away for an hour.
    async fn with_owner() -> Self {
        Self::set(false, 2).await
    }

    /// The same with labels.
    async fn labelled(labels: &[&str]) -> Self {
        let mut config = config(true, 2);
        config.labels = Labels::new(labels.iter().copied().map(str::to_owned)).unwrap();
        Self::set_with(config).await
    }

    async fn set(always: bool, slots: u32) -> Self {
        Self::set_with(config(always, slots)).await
    }

    async fn set_with(config: WorkerConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::default();
        coordinator.now().pin = Some(SpkiPin([7; 32]));
        let (sandbox, pc) = (FakeSandbox::default(), Pc::default());
        pc.idle_for(3600);
        let worker = begin_with(config, &folder, &coordinator, &sandbox, &pc).await.unwrap();
        worker.join(&code(7)).await.unwrap();
        let stage = Self { folder, coordinator, sandbox, pc, worker };
        stage.connected().await;
        stage
    }

    async fn connected(&self) {
        let status = self.worker.status();
        let connected = || matches!(status.borrow().connection, Connection::Connected { .. });
        eventually("the worker is connected", connected).await;
    }

    /// Ends this worker as a power cut would, without a word to anybody, and starts it again.
    async fn power_cut(self, meanwhile: impl FnOnce(&Self)) -> Self {
        // The task is dropped with everything it owns; only the disk remains.
        self.worker.break_off().await;
        meanwhile(&self);
        self.coordinator.now().requests.clear();
        let sandbox = FakeSandbox::default();
        let worker = begin(&self.folder, &self.coordinator, &sandbox, &self.pc, true, 2).await;
        Self { worker: worker.unwrap(), sandbox, ..self }
    }

    async fn result_of(&self, job: &Assignment) -> Option<i32> {
        let find = || {
            let played = self.coordinator.now();
            played.results.iter().find(|result| result.job_id == job.job_id).cloned()
        };
        eventually("the result arrives", || find().is_some()).await;
        find().unwrap().exit_code
    }

    async fn failure_of(&self, job: &Assignment) -> FailureKind {
        let find = || {
            let played = self.coordinator.now();
            played.reports.iter().find(|report| report.job_id == job.job_id).map(|r| r.kind)
        };
        eventually("the failure is reported", || find().is_some()).await;
        find().unwrap()
    }

    async fn saw(&self, seen: &[Seen]) {
        eventually(&format!("the sandbox saw {seen:?}"), || self.sandbox.seen() == seen).await;
    }

    fn state(&self) -> (WorkerState, Option<SuspendReason>) {
        let status = self.worker.status();
        let status = status.borrow();
        (status.state, status.reason)
    }

    fn files_in(&self, folder: &str) -> usize {
        fs::read_dir(self.folder.path().join(folder)).unwrap().count()
    }

    async fn nothing_is_left(&self) {
        let empty = || self.files_in("spool") == 0 && self.files_in("jobs") == 0;
        eventually("spool and jobs are empty", empty).await;
    }
}

async fn begin(
    folder: &TempDir,
    coordinator: &Coordinator,
    sandbox: &FakeSandbox,
    pc: &Pc,
    always: bool,
    slots: u32,
) -> Result<WorkerHandle, StartError> {
    begin_with(config(always, slots), folder, coordinator, sandbox, pc).await
}

/// A configuration that has no folder yet.
fn config(always: bool, slots: u32) -> WorkerConfig {
    let mut config = WorkerConfig::new(std::path::PathBuf::new());
    (config.always, config.slots) = (always, Some(slots));
    config
}

async fn begin_with(
    config: WorkerConfig,
    folder: &TempDir,
    coordinator: &Coordinator,
    sandbox: &FakeSandbox,
    pc: &Pc,
) -> Result<WorkerHandle, StartError> {
    let config = WorkerConfig { data_dir: folder.path().to_owned(), ..config };
    let ground = Ground {
        connector: std::sync::Arc::new(coordinator.clone()),
        machine: Box::new(pc.clone()),
        sandbox: std::sync::Arc::new(sandbox.clone()),
        clock: std::sync::Arc::new(SystemClock),
    };
    start_on(config, ground).await
}

fn code(pin: u8) -> String {
    let code = JoinCode::generate(SpkiPin([pin; 32]), vec!["played:7700".to_owned()]);
    code.to_text().expose_secret().to_owned()
}
