//! The coordinator as a library. [`serve`] is the whole program except for the process around it.

#![doc = include_str!("../README.md")]

pub mod admin;
mod archives;
pub mod auth;
pub mod blobs;
pub mod config;
mod direct;
pub mod http;
mod keeping;
pub mod lifecycle;
pub mod model;
pub mod reaper;
pub mod routes;
pub mod scheduler;
pub mod signals;
mod start;
pub mod store;
pub mod telemetry;
pub mod tls;

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use lull_shared::time::Clock;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    archives::Archives,
    blobs::Blobs,
    config::Config,
    direct::Direct,
    http::Connections,
    routes::AppState,
    scheduler::{Scheduler, Settings},
    store::{Store, StoreRead, lock::FolderLock},
    tls::Tls,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The bound sockets of a coordinator.
#[derive(Debug)]
pub struct Listeners {
    /// Answers HTTPS.
    pub https: TcpListener,
    /// Answers plain HTTP, to this machine only.
    pub http: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// When an address is taken or not this machine's.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let http = match config.http_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { https: bind(config.listen).await?, http })
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "could not listen on {address}; choose another address with --listen or --http-listen"
        )
    })
}

/// Chooses the cryptography of the whole process. Called again, it changes nothing.
pub fn install_crypto() {
    // Fails only when it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Runs a coordinator on bound sockets until `shutdown` is cancelled.
///
/// The caller binds, so a test can ask for port 0 and know the address before the first request. The caller owns the
/// clock, so a test can make leases expire without waiting.
///
/// # Errors
/// When the data folder cannot be used or another coordinator serves it, or a part of the coordinator breaks.
pub async fn serve(
    config: Config,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if cfg!(any(feature = "fault-unfenced", feature = "fault-unsynced")) {
        tracing::error!("this coordinator has a fault built in on purpose; it is for tests only");
    }
    let data_dir = config.data_dir.as_path();
    fs::create_dir_all(data_dir)
        .with_context(|| format!("could not make the data folder {}", data_dir.display()))?;
    let _lock = FolderLock::acquire(data_dir)?;
    if let Some(kind) = store::network::file_system(data_dir) {
        tracing::warn!(
            file_system = %kind,
            data_dir = %data_dir.display(),
            "the data folder lies on a network file system, where neither locks nor commits are safe; \
             use a disk of this machine"
        );
    }
    let store = store::open(data_dir).with_context(|| {
        format!("could not open the database {}", data_dir.join(store::DATABASE).display())
    })?;
    let tls = Tls::open(data_dir, &config.names, Arc::clone(&clock))?;
    let state = open_state(&config, store, clock, shutdown.clone())?;
    let addresses = start::Addresses::of(&listeners, &config)?;
    addresses.record(data_dir)?;

    let connections = Connections::new(config.connections_max, config.connections_per_address_max);
    let server_config = tls.server_config()?;
    let scheduler = Arc::clone(&state.scheduler);
    let housekeeper = keeping::Housekeeper::of(&state);
    let app = routes::router(state);
    let mut tasks = JoinSet::new();
    // Requests are the last to end: what they wait for must go on until then.
    if let Some(plain) = listeners.http {
        let (app, connections) = (app.clone(), Arc::clone(&connections));
        tasks.spawn(http::run(plain, None, app, connections, shutdown.clone()));
    }
    tasks.spawn(http::run(
        listeners.https,
        Some(server_config),
        app,
        connections,
        shutdown.clone(),
    ));
    let stop = shutdown.clone();
    tasks.spawn(async move {
        reaper::run(scheduler, config.reap_every, stop).await;
        Ok(())
    });
    let (stop, keeping) = (shutdown.clone(), config.keeping);
    tasks.spawn(async move {
        keeping::run(housekeeper, keeping, stop).await;
        Ok(())
    });
    let (stop, kept) = (shutdown.clone(), Arc::clone(&tls));
    tasks.spawn(async move {
        tls::keep_renewed(kept, stop).await;
        Ok(())
    });

    start::announce(&addresses, &config, tls.pin()?)?;
    // Whichever task ends first ends the rest: a coordinator that answers requests but no longer reaps leases
    // looks healthy and strands every job of a dead worker.
    while let Some(ended) = tasks.join_next().await {
        shutdown.cancel();
        ended.context("a part of the coordinator panicked")??;
    }
    tracing::info!("coordinator ended");
    Ok(())
}

fn open_state(
    config: &Config,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> anyhow::Result<AppState> {
    let direct = match config.allow_direct {
        true => Some(Arc::new(Direct::open(&config.data_dir)?)),
        false => None,
    };
    let reads: Arc<dyn StoreRead> = Arc::clone(&store) as _;
    // Six signs of life for each lease: some may get lost.
    let settings = Settings {
        lease: config.lease,
        heartbeat: config.lease.min(MINUTE) / 6,
        waiting_max: config.waiting_max,
    };
    Ok(AppState {
        scheduler: Arc::new(Scheduler::new(store, clock, settings)),
        tokens: Arc::new(auth::KnownTokens::new(Arc::clone(&reads))),
        reads,
        blobs: Blobs::open(&config.data_dir)?,
        archives: Arc::new(Archives::default()),
        direct,
        upload_bytes_max: config.upload_bytes_max,
        shutdown,
    })
}
