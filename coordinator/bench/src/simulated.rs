//! A worker that is a few requests and no process: it says and does just what a test wants.

use std::collections::BTreeSet;

use anyhow::Context as _;
use lull_shared::{
    client::{Client, ClientError, Trust},
    credentials::{BearerToken, JoinCode},
    ids::WorkerId,
    jobs::{Assignment, ClaimQuery, Network, SubmitResult},
    workers::{Heartbeat, RegisterWorker, SandboxLevel, WorkerState},
};
use secrecy::{ExposeSecret as _, SecretString};

/// A simulated worker that has joined.
#[derive(Debug)]
pub struct SimulatedWorker {
    /// Its id.
    pub id: WorkerId,
    /// Speaks with its token.
    pub client: Client,
    token: SecretString,
}

impl SimulatedWorker {
    /// Joins with a code by plain HTTP on loopback.
    ///
    /// # Errors
    /// When the code is none or the coordinator refuses.
    pub async fn join(http_url: &str, code: &str) -> anyhow::Result<Self> {
        // Plain HTTP on loopback has no certificate to check.
        Self::join_by(&Client::new(&[http_url], Trust::System)?, code).await
    }

    /// Joins with a code by the connections of a client that many share.
    ///
    /// # Errors
    /// When the code is none or the coordinator refuses.
    pub async fn join_by(stranger: &Client, code: &str) -> anyhow::Result<Self> {
        let code: JoinCode = code.parse().context("not a join code")?;
        let id = WorkerId::generate();
        let token = BearerToken::generate_worker(id).to_text();
        let worker = Self { id, client: stranger.with_token(token.clone()), token };
        stranger.with_token(code.bearer()).register(&worker.about(true)).await?;
        Ok(worker)
    }

    fn about(&self, joins: bool) -> RegisterWorker {
        RegisterWorker {
            worker_id: self.id,
            worker_token: joins.then(|| self.token.expose_secret().to_owned()),
            hostname: "simulated".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpu_count: 8,
            memory_bytes: 16 << 30,
            version: "0.1.0".to_owned(),
            slots: 64,
            sandbox_level: SandboxLevel::L3,
            labels: BTreeSet::new(),
            network: Network::None,
            cached_inputs: Vec::new(),
        }
    }

    /// Registers once more, as after a restart.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn register_again(&self) -> Result<(), ClientError> {
        self.client.register(&self.about(false)).await.map(drop)
    }

    /// Says that it is there and ready.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn heartbeat(&self) -> Result<(), ClientError> {
        let beat = Heartbeat {
            worker_id: self.id,
            status: WorkerState::Ready,
            reason: None,
            running: Vec::new(),
        };
        self.client.heartbeat(&beat).await.map(drop)
    }

    /// Claims up to `max` jobs, waiting up to `wait` seconds for the first.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn claim(&self, wait: u32, max: u32) -> Result<Vec<Assignment>, ClientError> {
        Ok(self.client.get_job(&ClaimQuery { wait, max: Some(max) }).await?.jobs)
    }

    /// What it says of a job that succeeded without a word.
    #[must_use]
    pub const fn success_of(job: &Assignment) -> SubmitResult {
        SubmitResult {
            job_id: job.job_id,
            attempt: job.attempt,
            exit_code: Some(0),
            error_message: None,
            artifacts: Vec::new(),
            output: Vec::new(),
        }
    }
}
