//! Torture: real programs, killed and stopped at random moments over a network that loses replies, while a record is
//! kept of every acknowledged submission. In the end every job must have run to its one end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lull_shared::{
    client::{Client, ClientError, Trust},
    credentials::Role,
    ids::JobId,
    jobs::{CreateJob, JobFilter, Requirements},
    workers::SandboxLevel,
};
use tokio::{
    task::{JoinSet, block_in_place},
    time::sleep,
};

use crate::{
    chaos::{ChaosProxy, Trouble},
    pool::Pool,
    simulated::SimulatedWorker,
};

mod check;
mod sleeper;

pub use check::Fault;

/// What is done to the pool.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many jobs are submitted.
    pub jobs: u32,
    /// How many workers run them.
    pub workers: u32,
    /// How often the coordinator is killed.
    pub coordinator_kills: u32,
    /// How often a worker is killed.
    pub worker_kills: u32,
    /// How often a worker is stopped until its leases are over, and goes on then.
    pub stops: u32,
    /// How often a simulated worker sleeps over its lease and then delivers all the same.
    pub sleepers: u32,
    /// The lease.
    pub lease: Duration,
    /// What chance begins with.
    pub seed: u64,
    /// Another coordinator program than the one beside this program.
    pub coordinator: Option<PathBuf>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What must not be.
    pub faults: Vec<Fault>,
    /// How long the coordinator took to answer again after each kill.
    pub ready_after: Vec<Duration>,
    /// How many submissions were acknowledged.
    pub acknowledged: u32,
    /// How many attempts began in all.
    pub attempts: u32,
    /// How many late deliveries of sleeping workers were refused.
    pub fenced: u32,
    /// How long it took.
    pub took: Duration,
}

/// How many jobs wait or run at once.
const BACKLOG: u64 = 300;
const SUBMITTERS: u32 = 8;
const TROUBLE: Trouble = Trouble { delays: 5, cuts: 2, lost_replies: 3 };

/// Jobs by their number, as they were acknowledged.
type Acknowledged = Arc<Mutex<BTreeMap<u32, JobId>>>;

/// What job number `n` runs: each says its own name and attempt once; some take a while, some write much, some fail.
fn command(number: u32) -> (&'static str, i32) {
    match number % 50 {
        7 => ("echo $LULL_JOB_ID $LULL_ATTEMPT; exit 3", 3),
        19 => ("sleep 0.4; echo $LULL_JOB_ID $LULL_ATTEMPT", 0),
        31 => ("echo $LULL_JOB_ID $LULL_ATTEMPT; head -c 300000 /dev/zero | tr '\\0' x >&2", 0),
        _ => ("echo $LULL_JOB_ID $LULL_ATTEMPT", 0),
    }
}

/// Tortures a pool and checks what became of every job.
///
/// # Errors
/// When the pool cannot be started or asked: that it does wrong is no error but a fault in the outcome.
pub async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let lease = format!("--lease={}s", plan.lease.as_secs());
    let extra = [lease.as_str()];
    let mut pool = block_in_place(|| Pool::start_other(plan.coordinator.as_deref(), None, &extra))?;
    let https: SocketAddr = pool.url.trim_start_matches("https://").parse()?;
    let proxy = ChaosProxy::start(https, TROUBLE, plan.seed).await?;
    pool.tell_workers(proxy.address.to_string());
    let ca = Trust::CaPem(std::fs::read_to_string(pool.ca_file())?);
    let token: secrecy::SecretString = pool.token(Role::Submitter)?.into();
    let troubled = Client::new(&[proxy.address.to_string()], ca.clone())?.with_token(token.clone());
    let direct = Client::new(&[&pool.url], ca)?.with_token(token);
    let sleeper = SimulatedWorker::join(&pool.http_url, &pool.join_code()?).await?;

    let acknowledged = Acknowledged::default();
    let mut outcome = Outcome::default();
    let (next, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let ended = Arc::new(AtomicU32::new(0));
    let mut submitters = JoinSet::new();
    for _ in 0..SUBMITTERS {
        let (troubled, direct) = (troubled.clone(), direct.clone());
        let (next, acknowledged) = (Arc::clone(&next), Arc::clone(&acknowledged));
        let (jobs, seed) = (plan.jobs, plan.seed);
        submitters.spawn(submit(troubled, direct, next, jobs, seed, acknowledged));
    }
    let watching = tokio::spawn(watch(direct.clone(), Arc::clone(&ended), Arc::clone(&stop)));
    // The sleeper comes first, before there is anybody who would leave nothing for it.
    let first = if plan.sleepers > 0 { sleeper::first_claim(&sleeper).await } else { Vec::new() };
    for _ in 0..plan.workers {
        block_in_place(|| pool.start_worker(&["--slots=2"]))?;
    }
    let sleeping = tokio::spawn(sleeper::run(
        sleeper,
        direct.clone(),
        first,
        plan.sleepers,
        plan.lease,
        Arc::clone(&stop),
    ));

    torment(&mut pool, plan, &extra, &ended, &mut outcome).await?;
    submitters.join_all().await;
    let stuck = wait_until_done(&direct, plan).await?;
    stop.store(true, Ordering::Relaxed);
    watching.await?;
    let slept = sleeping.await??;
    outcome.fenced = slept.refused;
    outcome.faults.extend(slept.faults);
    outcome.faults.extend(stuck);

    let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    outcome.acknowledged = u32::try_from(acknowledged.len())?;
    let histories: Vec<PathBuf> = (0..plan.workers)
        .map(|number| pool.worker_data(number as usize).join("history.db"))
        .collect();
    check::check(&direct, plan.seed, &acknowledged, &histories, &mut outcome).await?;
    outcome.took = begun.elapsed();
    Ok(outcome)
}

/// Submits jobs until all are acknowledged, sending again whatever got no answer.
async fn submit(
    troubled: Client,
    direct: Client,
    next: Arc<AtomicU32>,
    jobs: u32,
    seed: u64,
    acknowledged: Acknowledged,
) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= jobs {
            return;
        }
        while number.is_multiple_of(20) && backlog(&direct).await.is_none_or(|jobs| jobs > BACKLOG)
        {
            moment().await;
        }
        let job = submission(number, seed);
        let made = loop {
            match troubled.create_job(&job).await {
                Ok(made) => break made,
                Err(error) if error.is_transient() => moment().await,
                // Recorded as lost in the end, with the reason in the log.
                Err(error) => {
                    tracing_line(&error);
                    return;
                }
            }
        };
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(number, made.job_id);
    }
}

fn submission(number: u32, seed: u64) -> CreateJob {
    CreateJob {
        command: command(number).0.to_owned(),
        requirements: Requirements { min_sandbox: SandboxLevel::L0, ..Requirements::default() },
        idempotency_key: Some(format!("torture-{seed}-{number}")),
        ..CreateJob::default()
    }
}

#[expect(clippy::print_stderr, reason = "what the run cannot explain otherwise")]
fn tracing_line(error: &ClientError) {
    eprintln!("a submission was refused: {error}");
}

async fn backlog(client: &Client) -> Option<u64> {
    let counts = client.list_jobs(&JobFilter { limit: Some(1), ..JobFilter::default() }).await;
    counts.ok().map(|list| list.counts.pending + list.counts.running)
}

/// Keeps count of the jobs that have ended.
async fn watch(client: Client, ended: Arc<AtomicU32>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(list) =
            client.list_jobs(&JobFilter { limit: Some(1), ..JobFilter::default() }).await
        {
            let counts = list.counts;
            let number = counts.completed + counts.failed + counts.cancelled;
            ended.store(u32::try_from(number).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        moment().await;
    }
}

#[derive(Clone, Copy)]
enum Torment {
    KillCoordinator,
    KillWorker,
    StopWorker,
}

/// Does to the pool what the plan says, spread evenly over the jobs' progress, in an order left to chance.
async fn torment(
    pool: &mut Pool,
    plan: &Plan,
    extra: &[&str],
    ended: &AtomicU32,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    let mut torments = vec![Torment::KillCoordinator; plan.coordinator_kills as usize];
    torments.extend(vec![Torment::KillWorker; plan.worker_kills as usize]);
    torments.extend(vec![Torment::StopWorker; plan.stops as usize]);
    chance.shuffle(&mut torments);
    let total = u32::try_from(torments.len())?;
    for (number, torment) in (0..total).zip(torments) {
        let due = u64::from(plan.jobs) * u64::from(number) / u64::from(total) * 9 / 10;
        while u64::from(ended.load(Ordering::Relaxed)) < due {
            moment().await;
        }
        sleep(Duration::from_millis(chance.u64(0..200))).await;
        let worker = chance.usize(..plan.workers as usize);
        match torment {
            Torment::KillCoordinator => {
                let ready = block_in_place(|| {
                    pool.coordinator().kill()?;
                    let begun = Instant::now();
                    pool.start_coordinator(extra)?;
                    anyhow::Ok(begun.elapsed())
                })?;
                outcome.ready_after.push(ready);
            }
            Torment::KillWorker => block_in_place(|| {
                pool.worker(worker).kill()?;
                pool.restart_worker(worker, &["--slots=2"])
            })?,
            Torment::StopWorker => {
                pool.worker(worker).signal("STOP")?;
                sleep(plan.lease + Duration::from_millis(chance.u64(500..2500))).await;
                pool.worker(worker).signal("CONT")?;
            }
        }
    }
    Ok(())
}

/// Waits until no job is left to do. A pool in which nothing ends for twice the lease is stuck.
async fn wait_until_done(client: &Client, plan: &Plan) -> anyhow::Result<Option<Fault>> {
    let (mut fewest, mut since) = (u64::MAX, Instant::now());
    loop {
        let left = backlog(client).await.context("the coordinator does not answer")?;
        if left == 0 {
            return Ok(None);
        }
        if left < fewest {
            (fewest, since) = (left, Instant::now());
        }
        // A job whose pause before the next try is on its way is not stuck: those are seconds.
        if since.elapsed() > plan.lease * 2 + Duration::from_secs(10) {
            return Ok(Some(Fault::Stuck { jobs: left }));
        }
        moment().await;
    }
}

/// A moment between two looks at something outside this process.
async fn moment() {
    sleep(Duration::from_millis(20)).await;
}

/// Whether the program is there; says how to build it otherwise.
///
/// # Errors
/// When it is not.
pub fn faulty_coordinator(folder: &Path) -> anyhow::Result<PathBuf> {
    let program = folder.join("lull-coordinator");
    anyhow::ensure!(
        program.is_file(),
        "{} is not there; scripts/fault-builds.sh builds it",
        program.display()
    );
    Ok(program)
}
