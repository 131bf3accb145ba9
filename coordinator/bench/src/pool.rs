//! A whole pool on loopback: a coordinator, its workers and a client, all real.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use lull_shared::{
    client::{Client, Trust},
    credentials::Role,
};
use tempfile::TempDir;

use crate::process::{Process, program};

/// A coordinator on loopback with workers, all in one temporary folder that goes with it.
pub struct Pool {
    folder: TempDir,
    /// The coordinator to start, when it is not the one beside this program.
    coordinator_program: Option<PathBuf>,
    /// Where the coordinator keeps its data, when not in the pool's folder.
    coordinator_data: Option<PathBuf>,
    /// `host:port` that workers are told, when not the coordinator's own.
    told_address: Option<String>,
    coordinator: Option<Process>,
    workers: Vec<Option<Process>>,
    /// Where the coordinator answers over TLS.
    pub url: String,
    /// Where it answers over plain HTTP on loopback.
    pub http_url: String,
}

impl Pool {
    /// Starts a coordinator without workers.
    ///
    /// # Errors
    /// When it does not get ready; its log is in the message.
    pub fn start(extra: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(tempfile::Builder::new().prefix("lull-pool").tempdir()?, extra)
    }

    /// Starts another coordinator program than the one beside this program, or on another data folder.
    ///
    /// # Errors
    /// When it does not get ready; its log is in the message.
    pub fn start_other(
        program: Option<&Path>,
        data: Option<&Path>,
        extra: &[&str],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("lull-pool").tempdir()?;
        let mut pool = Self::stopped(folder);
        pool.coordinator_program = program.map(Path::to_owned);
        pool.coordinator_data = data.map(Path::to_owned);
        pool.start_coordinator(extra)?;
        Ok(pool)
    }

    /// Lets workers that join from now on find the coordinator at another address: a proxy's.
    pub fn tell_workers(&mut self, address: String) {
        self.told_address = Some(address);
    }

    fn start_in(folder: TempDir, extra: &[&str]) -> anyhow::Result<Self> {
        let mut pool = Self::stopped(folder);
        pool.start_coordinator(extra)?;
        Ok(pool)
    }

    fn stopped(folder: TempDir) -> Self {
        Self {
            folder,
            coordinator_program: None,
            coordinator_data: None,
            told_address: None,
            coordinator: None,
            workers: Vec::new(),
            url: "https://127.0.0.1:0".to_owned(),
            http_url: "http://127.0.0.1:0".to_owned(),
        }
    }

    fn coordinator_program(&self) -> anyhow::Result<PathBuf> {
        match &self.coordinator_program {
            Some(program) => Ok(program.clone()),
            None => program("lull-coordinator"),
        }
    }

    /// A new join code that names the address workers are told.
    ///
    /// # Errors
    /// When the subcommand fails.
    pub fn join_code(&self) -> anyhow::Result<String> {
        match &self.told_address {
            Some(address) => self.admin(&["join-code", "--name", address]),
            None => self.admin(&["join-code"]),
        }
    }

    /// A new join code for so many workers.
    ///
    /// # Errors
    /// When the subcommand fails.
    pub fn join_code_for(&self, workers: u32) -> anyhow::Result<String> {
        self.admin(&["join-code", "--uses", &workers.to_string()])
    }

    /// Starts the coordinator; after a kill, again on the address it had.
    ///
    /// # Errors
    /// When it does not get ready; its log is in the message.
    pub fn start_coordinator(&mut self, extra: &[&str]) -> anyhow::Result<()> {
        let ready = self.path("coordinator.ready");
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        let mut args = vec![
            format!("--data-dir={}", self.coordinator_data().display()),
            format!("--listen={}", self.url.trim_start_matches("https://")),
            format!("--http-listen={}", self.http_url.trim_start_matches("http://")),
            format!("--ready-file={}", ready.display()),
        ];
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let mut process =
            Process::start(&self.coordinator_program()?, self.path("coordinator.log"), &args)?;
        let text = process.wait_for_file(&ready)?;
        let said: serde_json::Value = serde_json::from_str(&text)?;
        said["url"].as_str().context("the ready file names no url")?.clone_into(&mut self.url);
        said["httpUrl"].as_str().context("it names no httpUrl")?.clone_into(&mut self.http_url);
        self.coordinator = Some(process);
        Ok(())
    }

    /// The running coordinator.
    ///
    /// # Panics
    /// When it has been killed and not started again.
    pub fn coordinator(&mut self) -> &mut Process {
        self.coordinator.as_mut().expect("the coordinator runs")
    }

    /// The running coordinator, to look at.
    ///
    /// # Panics
    /// When it has been killed and not started again.
    #[must_use]
    pub fn coordinator_seen(&self) -> &Process {
        self.coordinator.as_ref().expect("the coordinator runs")
    }

    /// Starts a worker that never minds an owner, with these further arguments, and waits until it has joined.
    ///
    /// # Errors
    /// When it does not get ready; its log is in the message.
    pub fn start_worker(&mut self, extra: &[&str]) -> anyhow::Result<usize> {
        self.workers.push(None);
        let number = self.workers.len() - 1;
        self.restart_worker(number, extra)?;
        Ok(number)
    }

    /// Starts a worker again on the data folder it had.
    ///
    /// # Errors
    /// When it does not get ready; its log is in the message.
    pub fn restart_worker(&mut self, number: usize, extra: &[&str]) -> anyhow::Result<()> {
        let ready = self.path(&format!("worker-{number}.ready"));
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        let mut args = vec![
            format!("--data-dir={}", self.worker_data(number).display()),
            "--always".to_owned(),
            format!("--join={}", self.join_code()?),
            format!("--ready-file={}", ready.display()),
        ];
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let log = self.path(&format!("worker-{number}.log"));
        let mut process = Process::start(&program("lull-worker")?, log, &args)?;
        process.wait_for_file(&ready)?;
        self.workers[number] = Some(process);
        Ok(())
    }

    /// A running worker.
    ///
    /// # Panics
    /// When there is none of this number.
    pub fn worker(&mut self, number: usize) -> &mut Process {
        self.workers[number].as_mut().expect("the worker runs")
    }

    /// Runs a subcommand of the coordinator on the pool's data folder; gives what it printed.
    ///
    /// # Errors
    /// When it fails; what it said is in the message.
    pub fn admin(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = std::process::Command::new(self.coordinator_program()?)
            .arg(format!("--data-dir={}", self.coordinator_data().display()))
            .args(args)
            .output()?;
        anyhow::ensure!(
            output.status.success(),
            "lull-coordinator {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// A new token.
    ///
    /// # Errors
    /// When the subcommand fails.
    pub fn token(&self, role: Role) -> anyhow::Result<String> {
        self.admin(&["token", "--role", role.name()])
    }

    /// A client over TLS with the pool's CA and a new token.
    ///
    /// # Errors
    /// When the token cannot be made or the CA not be read.
    pub fn client(&self, role: Role) -> anyhow::Result<Client> {
        let trust = Trust::CaPem(fs::read_to_string(self.ca_file())?);
        Ok(Client::new(&[&self.url], trust)?.with_token(self.token(role)?.into()))
    }

    /// The CA that clients pin.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.coordinator_data().join("tls/ca.pem")
    }

    /// The coordinator's data folder.
    #[must_use]
    pub fn coordinator_data(&self) -> PathBuf {
        self.coordinator_data.clone().unwrap_or_else(|| self.path("coordinator"))
    }

    /// A worker's data folder.
    #[must_use]
    pub fn worker_data(&self, number: usize) -> PathBuf {
        self.path(&format!("worker-{number}"))
    }

    /// A path in the pool's own folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
