//! A real coordinator for tests: real sockets, real TLS, a real database file, a clock the test moves.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use lull_coordinator::{Listeners, config::Config, install_crypto, model, serve, store, tls};
use lull_shared::{
    client::{Client, Trust},
    credentials::{BearerToken, JoinCode, Role, SecretHash, SpkiPin},
    ids::{JobId, WorkerId},
    jobs::{Assignment, ClaimQuery, CreateJob, Job},
    problem::Problem,
    time::{Clock, SystemClock, Timestamp},
    workers::{RegisterWorker, SandboxLevel},
};
use reqwest::{Method, RequestBuilder, Response};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that stands still until the test moves it. Begins at the real time, which certificates are held to.
pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl ManualClock {
    pub(crate) fn set_back(&self, by: Duration) {
        self.0.fetch_sub(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct TestCoordinator {
    pub(crate) https: String,
    pub(crate) http: String,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) pin: SpkiPin,
    pub(crate) data: TempDir,
    store: Arc<dyn store::Store>,
    shutdown: CancellationToken,
    server: Option<JoinHandle<anyhow::Result<()>>>,
}

impl TestCoordinator {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(settle: impl FnOnce(&mut Config)) -> Self {
        install_crypto();
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock(AtomicI64::new(SystemClock.now().as_millis())));
        // Bound before they are served: an early request waits in the backlog, so nothing sleeps.
        let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners { https: listener().await, http: Some(listener().await) };
        let https = listeners.https.local_addr().unwrap().to_string();
        let http = format!("http://{}", listeners.http.as_ref().unwrap().local_addr().unwrap());
        let mut config = Config::for_data_dir(data.path());
        config.reap_every = Duration::from_millis(10);
        settle(&mut config);

        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(config, clock.clone(), listeners, shutdown.clone()));
        let raw = raw_client();
        eventually("the coordinator is ready", async || {
            raw.get(format!("{http}/readyz")).send().await.ok().filter(|r| r.status() == 200)
        })
        .await;
        Self {
            pin: pin(data.path()),
            store: store::open(data.path()).unwrap(),
            https,
            http,
            clock,
            data,
            shutdown,
            server: Some(server),
        }
    }

    /// Makes an API token the way the subcommand does: in the data folder, beside the running server.
    pub(crate) async fn token(&self, role: Role) -> SecretString {
        self.token_until(role, None).await
    }

    pub(crate) async fn token_until(&self, role: Role, end: Option<Timestamp>) -> SecretString {
        let token = BearerToken::generate_api();
        let BearerToken::Api(id, secret) = &token else { panic!("an API token") };
        let record = model::ApiToken {
            weight: 1,
            id: *id,
            name: role.name().to_owned(),
            role,
            secret: SecretHash::of(secret),
            created_at: self.clock.now(),
            expires_at: end,
            last_used_at: None,
        };
        self.store.add_token(record).await.unwrap();
        token.to_text()
    }

    pub(crate) async fn join_code(&self, uses: u32) -> JoinCode {
        let code = JoinCode::generate(self.pin, vec![self.https.clone()]);
        let now = self.clock.now();
        let record = model::JoinCodeRecord {
            id: code.id,
            secret: SecretHash::of(&code.secret),
            uses,
            used: 0,
            created_at: now,
            expires_at: now + Duration::from_secs(3600),
            last_used_at: None,
        };
        self.store.add_join_code(record).await.unwrap();
        code
    }

    /// The real client over TLS, which knows the coordinator by its fingerprint alone.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(&[&self.https], Trust::SpkiPin(self.pin)).unwrap()
    }

    pub(crate) async fn client(&self, role: Role) -> Client {
        self.stranger().with_token(self.token(role).await)
    }

    pub(crate) async fn worker(&self, name: &str) -> TestWorker {
        let code = self.join_code(1).await;
        let id = WorkerId::generate();
        let token = BearerToken::generate_worker(id).to_text();
        let joiner = self.stranger().with_token(code.bearer());
        joiner.register(&machine(id, name, Some(&token))).await.unwrap();
        TestWorker { id, client: self.stranger().with_token(token.clone()), token }
    }

    /// A bare request by plain HTTP.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        raw_client().request(method, format!("{}{path}", self.http))
    }

    /// Ends the server and fails the test if it did not end well.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let server = self.server.take().unwrap();
        time::timeout(Duration::from_secs(10), server)
            .await
            .expect("it ends within 10 s")
            .unwrap()
            .unwrap();
    }
}

impl Drop for TestCoordinator {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) struct TestWorker {
    pub(crate) id: WorkerId,
    pub(crate) client: Client,
    pub(crate) token: SecretString,
}

impl TestWorker {
    pub(crate) async fn claim(&self, wait: u32) -> Option<Assignment> {
        let query = ClaimQuery { wait, max: Some(1) };
        self.client.get_job(&query).await.unwrap().jobs.pop()
    }
}

pub(crate) fn machine(
    worker_id: WorkerId,
    name: &str,
    token: Option<&SecretString>,
) -> RegisterWorker {
    RegisterWorker {
        worker_id,
        worker_token: token.map(|token| token.expose_secret().to_owned()),
        hostname: name.to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        cpu_count: 4,
        memory_bytes: 8 << 30,
        version: "0.1.0".to_owned(),
        slots: 2,
        sandbox_level: SandboxLevel::L3,
        labels: std::collections::BTreeSet::new(),
        network: lull_shared::jobs::Network::None,
        cached_inputs: Vec::new(),
    }
}

pub(crate) fn echo_job() -> CreateJob {
    CreateJob { command: "echo hi".to_owned(), ..CreateJob::default() }
}

pub(crate) async fn submit(client: &Client) -> JobId {
    let Job { job_id, .. } = client.create_job(&echo_job()).await.unwrap();
    job_id
}

pub(crate) fn raw_client() -> reqwest::Client {
    install_crypto();
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap()
}

/// The problem of a refused request, with the status it came with.
pub(crate) async fn problem(response: Response) -> Problem {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], Problem::MEDIA_TYPE, "{status}");
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    assert!(problem.request_id.is_some());
    problem
}

pub(crate) fn pin(data_dir: &Path) -> SpkiPin {
    let ca = CertificateDer::from_pem_file(data_dir.join("tls/ca.pem")).unwrap();
    tls::pin_of(&ca).unwrap()
}

/// Asks again until there is an answer; fails with what it waited for.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}
