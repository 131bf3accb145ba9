//! A pool for the app to join: a real coordinator and a real worker, beside the test's own programs.

use std::path::{Path, PathBuf};

use lull_worker::{Membership, Worker, WorkerConfig};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::desk::eventually;

/// A coordinator and, when asked for, a worker.
pub(crate) struct Pool {
    data: TempDir,
    /// Where it answers.
    pub(crate) url: String,
    programs: Vec<Child>,
}

impl Pool {
    pub(crate) async fn start() -> Self {
        let data = tempfile::Builder::new().prefix("lull-pool").tempdir().unwrap();
        let ready = data.path().join("ready");
        let coordinator = Command::new(program("lull-coordinator"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path().join("coordinator"))
            .arg("--ready-file")
            .arg(&ready)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = eventually("the coordinator answers", async || {
            let said: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()?;
            Some(said["url"].as_str()?.to_owned())
        })
        .await;
        Self { data, url, programs: vec![coordinator] }
    }

    /// Starts a worker that minds no owner.
    pub(crate) async fn start_worker(&mut self) {
        let ready = self.data.path().join("worker-ready");
        let worker = Command::new(program("lull-worker"))
            .arg("--always")
            .arg("--data-dir")
            .arg(self.data.path().join("worker"))
            .arg(format!("--join={}", self.admin(&["join-code"]).await))
            .arg("--ready-file")
            .arg(&ready)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.programs.push(worker);
        eventually("the worker has joined", async || ready.exists().then_some(())).await;
    }

    /// Makes the worker with its data there part of the pool.
    pub(crate) async fn take_in(&self, worker_dir: &Path) -> Membership {
        let worker = Worker::start(WorkerConfig::new(worker_dir.to_owned())).await.unwrap();
        worker.join(&self.admin(&["join-code"]).await).await.unwrap();
        let membership = worker.membership().unwrap();
        worker.stop().await;
        membership
    }

    /// What a subcommand of the coordinator prints.
    pub(crate) async fn admin(&self, args: &[&str]) -> String {
        let output = Command::new(program("lull-coordinator"))
            .arg("--data-dir")
            .arg(self.data.path().join("coordinator"))
            .args(args)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// A program of Lull: in the folder that `LULL_BIN_DIR` names, or beside the app.
fn program(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_lull-desktop")).parent().unwrap();
    let folder = std::env::var_os("LULL_BIN_DIR").map_or_else(|| beside.to_owned(), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: `cargo build --workspace` first, or set LULL_BIN_DIR",
        path.display()
    );
    path
}
