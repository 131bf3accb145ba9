//! The demo's coordinator and workers: processes of this computer with a temporary folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use lull_shared::client::{Client, Trust};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time,
};

use crate::config;

/// Short, so that nobody has to wait for a minute to see a lost worker's job move.
const LEASE: &str = "6s";

/// What the coordinator writes once it answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    url: String,
    http_url: Option<String>,
}

/// A pool that ends with the demo.
pub(super) struct Pool {
    folder: TempDir,
    coordinator: Option<Child>,
    workers: Vec<Child>,
    ready: Option<Ready>,
    token: Option<SecretString>,
}

impl Pool {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("lull-demo-").tempdir()?;
        Ok(Self { folder, coordinator: None, workers: Vec::new(), ready: None, token: None })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) async fn start_coordinator(&mut self) -> anyhow::Result<()> {
        let ready = self.folder().join("ready.json");
        let mut command = self.command("lull-coordinator", "coordinator.log")?;
        command.arg("--data-dir").arg(self.data_dir());
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--lease", LEASE]);
        command.arg("--ready-file").arg(&ready);
        let mut child = command.spawn().context("could not start lull-coordinator")?;
        for _ in 0..600 {
            if let Ok(text) = fs::read_to_string(&ready) {
                self.ready =
                    Some(serde_json::from_str(&text).context("could not read its address")?);
                self.coordinator = Some(child);
                self.token =
                    Some(self.admin(&["token", "--role", "admin", "--name", "demo"]).await?);
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("lull-coordinator ended with {status}:\n{}", self.log("coordinator.log"));
            }
            time::sleep(Duration::from_millis(50)).await;
        }
        bail!("lull-coordinator did not get ready:\n{}", self.log("coordinator.log"))
    }

    pub(super) async fn start_worker(&mut self, number: usize) -> anyhow::Result<()> {
        let code = self.admin(&["join-code"]).await?;
        let mut command = self.command("lull-worker", &worker_log(number))?;
        command.arg("--data-dir").arg(self.folder().join(format!("worker-{number}")));
        command.args(["--always", "--slots", "1"]).env("LULL_JOIN", code.expose_secret());
        self.workers.push(command.spawn().context("could not start lull-worker")?);
        Ok(())
    }

    /// Waits until a worker has ended by itself, and gives what to say then.
    pub(super) async fn worker_ended(&mut self, number: usize) -> anyhow::Result<anyhow::Error> {
        let status = self.workers[number].wait().await?;
        Ok(anyhow!("lull-worker ended with {status}:\n{}", self.worker_log(number)))
    }

    pub(super) async fn kill_worker(&mut self, number: usize) -> anyhow::Result<()> {
        Ok(self.workers[number].kill().await?)
    }

    pub(super) fn worker_log(&self, number: usize) -> String {
        self.log(&worker_log(number))
    }

    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let ca_pem = config::read_ca(&self.ca_file())?;
        let client = Client::new(&[self.url()?], Trust::CaPem(ca_pem))?;
        Ok(client.with_token(self.token.clone().context("there is no token yet")?))
    }

    /// The page's address on this computer.
    pub(super) fn page(&self) -> &str {
        self.ready.as_ref().and_then(|ready| ready.http_url.as_deref()).unwrap_or_default()
    }

    pub(super) fn token(&self) -> anyhow::Result<&str> {
        Ok(self.token.as_ref().context("there is no token yet")?.expose_secret())
    }

    /// What a `lull` command needs to reach the pool.
    pub(super) fn environment(&self) -> anyhow::Result<[(&'static str, String); 3]> {
        Ok([
            ("LULL_URL", self.url()?.to_owned()),
            ("LULL_TOKEN", self.token()?.to_owned()),
            ("LULL_CA", self.ca_file().display().to_string()),
        ])
    }

    /// Ends every process and removes the folder.
    pub(super) async fn stop(mut self) {
        // Workers first, so that none of them complains about a lost coordinator. One that has ended is as good.
        for child in self.workers.iter_mut().chain(&mut self.coordinator) {
            drop(child.kill().await);
        }
        drop(self.folder.close());
    }

    fn url(&self) -> anyhow::Result<&str> {
        Ok(&self.ready.as_ref().context("the coordinator is not ready")?.url)
    }

    fn data_dir(&self) -> PathBuf {
        self.folder().join("coordinator")
    }

    fn ca_file(&self) -> PathBuf {
        self.data_dir().join("tls").join("ca.pem")
    }

    /// Runs a subcommand of the coordinator; gives the code or token it prints.
    async fn admin(&self, args: &[&str]) -> anyhow::Result<SecretString> {
        let output = Command::new(program("lull-coordinator")?)
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(args)
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!("lull-coordinator {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().into())
    }

    /// A program that goes away with the pool, whose words go to a file.
    fn command(&self, name: &str, log: &str) -> anyhow::Result<Command> {
        let log = fs::File::create(self.folder().join(log))?;
        let mut command = Command::new(program(name)?);
        // The demo shows how things are without anyone's settings.
        command.env_remove("LULL_CONFIG").env_remove("LULL_ALLOW_DIRECT");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // Ctrl-C is for the demo, which then ends them.
        #[cfg(unix)]
        command.process_group(0);
        Ok(command)
    }

    fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder().join(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

fn worker_log(number: usize) -> String {
    format!("worker-{number}.log")
}

/// A program of Lull: next to this one, or where programs are.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let own = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    own.into_iter()
        .chain(config::program_folders())
        .map(|folder| folder.join(&file))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} is neither next to `lull` nor in PATH: install it, or build it with `cargo build`")
        })
}
