//! Starting a worker: takes the data folder, finds out what an earlier process left behind, begins the loop.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use lull_shared::{
    jobs::FailureKind,
    time::{Clock, SystemClock},
    workers::{RegisterWorker, SandboxLevel, SuspendReason},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{Pool, WorkerLoop, events::start_api};
use crate::{
    api::{Connector, Network},
    attempt::Tools,
    cache::Cache,
    config::WorkerConfig,
    folders::JobFolders,
    handle::{StartError, WorkerHandle},
    history::History,
    identity::{Folders, Identity},
    machine::{self, Machine, Sample, ThisPc},
    policy::{Decision, Limits},
    runner,
    sandbox::{Sandbox, default_sandbox, plain_sandbox},
    spool::{Report, Spool, parse_stem},
};

/// How long the lock of the data folder is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_EVERY: Duration = Duration::from_millis(20);

/// What a worker stands on; a test brings its own.
pub(super) struct Ground {
    pub(super) connector: Arc<dyn Connector>,
    pub(super) machine: Box<dyn Machine>,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Starts a worker on this PC.
pub(crate) async fn start(config: WorkerConfig) -> Result<WorkerHandle, StartError> {
    let ground = Ground {
        connector: Arc::new(Network),
        machine: Box::new(ThisPc::default()),
        sandbox: if config.plain { plain_sandbox() } else { default_sandbox().await },
        clock: Arc::new(SystemClock),
    };
    start_on(config, ground).await
}

/// What the data folder holds.
struct DataFolder {
    folders: Folders,
    lock: File,
    identity: Identity,
    history: History,
    spool: Spool,
    left: Vec<Report>,
    job_folders: JobFolders,
    cache: Arc<Cache>,
}

pub(super) async fn start_on(
    config: WorkerConfig,
    ground: Ground,
) -> Result<WorkerHandle, StartError> {
    // Jobs run in folders of their own, where a relative path would lead elsewhere.
    let root = std::path::absolute(&config.data_dir)
        .map_err(|source| StartError::DataFolder { path: config.data_dir.clone(), source })?;
    let folders = Folders { root };
    let level = ground.sandbox.level();
    let clock = Arc::clone(&ground.clock);
    let data = tokio::task::spawn_blocking(move || open(folders, level, clock))
        .await
        .expect("opening the data folder does not panic")?;

    let limits = Limits {
        slots: config.slots.unwrap_or_else(machine::default_slots).max(1),
        always: config.always,
    };
    let about = RegisterWorker {
        labels: config.labels.as_set().clone(),
        ..machine::describe(data.identity.worker_id, limits.slots, level)
    };
    let tools = Arc::new(Tools {
        sandbox: ground.sandbox,
        spool: data.spool,
        cache: data.cache,
        history: data.history,
        clock: ground.clock,
        folders: data.job_folders,
        network: about.network,
    });
    let (commands, inbox) = mpsc::unbounded_channel();
    let (tell_progress, progress) = mpsc::unbounded_channel();
    let (membership, membership_seen) = watch::channel(data.identity.membership());
    let api = start_api(&data.identity, ground.connector.as_ref());
    let now = Instant::now();
    // Until somebody looked, the owner is there.
    let unseen = Decision::Suspend(SuspendReason::IdleTimeUnknown);
    let decision = if limits.always { Decision::Run { slots: limits.slots } } else { unseen };
    let status = super::status::initial(&data.identity, &about, limits.slots, &tools);
    let (status, status_seen) = watch::channel(status);
    let mut worker = WorkerLoop {
        _lock: data.lock,
        folders: data.folders,
        identity: data.identity,
        about,
        limits,
        connector: ground.connector,
        tools,
        commands: inbox,
        progress,
        tell_progress,
        answers: JoinSet::new(),
        tasks: JoinSet::new(),
        // A server without an owner is not looked at.
        sample_at: (!limits.always).then_some(now),
        machine: Some(ground.machine),
        sample: Sample::default(),
        decision,
        suspended_since: decision.reason().map(|_| now),
        pool: Pool::new(0, api),
        held: std::collections::HashMap::new(),
        ahead: super::Ahead::default(),
        left: data.left,
        stopping: None,
        status,
        membership,
    };
    worker.judge();
    tokio::spawn(worker.run());
    Ok(WorkerHandle::new(commands, status_seen, membership_seen))
}

fn open(
    folders: Folders,
    level: SandboxLevel,
    clock: Arc<dyn Clock>,
) -> Result<DataFolder, StartError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::DataFolder { path, source }
    };
    make_private_folder(&folders.root).map_err(failed(&folders.root))?;
    let lock = lock(&folders)?;
    for folder in [folders.spool(), folders.jobs(), folders.cache()] {
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
    }
    let identity_path = folders.identity();
    let identity = Identity::load(&identity_path).map_err(|source| {
        if source.kind() == io::ErrorKind::InvalidData {
            StartError::Identity { path: identity_path.clone(), reason: source.to_string() }
        } else {
            StartError::DataFolder { path: identity_path.clone(), source }
        }
    })?;
    let history = History::open(&folders.history())?;
    history.close_open_rows(clock.now());
    let spool = Spool::new(folders.spool());
    let left = take_stock(&folders, &spool).map_err(failed(&folders.root))?;
    // Below L2 a job may read and write what this account can.
    let within_reach = level < SandboxLevel::L2;
    let cache =
        Cache::open(folders.cache(), within_reach, clock).map_err(failed(&folders.cache()))?;
    let job_folders =
        JobFolders::open(folders.jobs(), folders.spares()).map_err(failed(&folders.spares()))?;
    Ok(DataFolder { folders, lock, identity, history, spool, left, job_folders, cache })
}

/// Takes the folder's lock. A worker that is just ending, and a child of it that has not become another program yet,
/// hold it for a moment longer.
#[expect(clippy::disallowed_methods, reason = "the system's wait for a lock has no time limit")]
fn lock(folders: &Folders) -> Result<File, StartError> {
    let path = folders.lock();
    let failed = |source| StartError::DataFolder { path: path.clone(), source };
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed)?;
    let mut left = LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if left.is_zero() => {
                return Err(StartError::AlreadyRunning { path: folders.root.clone() });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_EVERY),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        left = left.saturating_sub(LOCK_EVERY);
    }
}

/// Ends and clears away what an earlier process left. Returns its spooled reports, and one for each attempt that was
/// cut off: its folder is there and its end is not on disk.
fn take_stock(folders: &Folders, spool: &Spool) -> io::Result<Vec<Report>> {
    let jobs = folders.jobs();
    let mut reports = spool.load()?;
    let leftovers = fs::read_dir(&jobs)?.collect::<io::Result<Vec<_>>>()?;
    if leftovers.is_empty() {
        return Ok(reports);
    }
    machine::kill_processes_in(&jobs);
    for leftover in leftovers {
        let name = leftover.file_name();
        let key = name.to_str().and_then(parse_stem);
        if let Some(key) = key
            && !reports.iter().any(|report| report.key == key)
        {
            let message = "the worker was restarted while the job ran".to_owned();
            let report = Report::failed(key, FailureKind::WorkerRestarted, message);
            spool.write(&report, None)?;
            reports.push(report);
        }
        let path = leftover.path();
        if let Err(error) = runner::remove_folder(&path) {
            tracing::warn!(path = %path.display(), error = %error, "leftover was not removed");
        }
    }
    Ok(reports)
}

#[cfg(unix)]
fn make_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}
