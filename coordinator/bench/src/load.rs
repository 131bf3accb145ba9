//! What each request costs with an empty queue and with a full one, whole lifecycles a second with simulated workers,
//! and thousands of workers that wait: all over real HTTP, with a bare axum handler beside it in the same run.

use std::{
    future::Future,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lull_bench::{pool::Pool, simulated::SimulatedWorker};
use lull_shared::{
    client::{Client, Trust},
    credentials::Role,
    ids::JobId,
    jobs::{Assignment, CreateJob, JobFilter},
};

use crate::figures::{Samples, line, millis, print_disk_sync, rate};

mod bare;
mod lifecycles;
mod waiting;

/// How much is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The sizes of the queue at which each operation is measured, growing.
    pub(crate) stored: Vec<u32>,
    /// How many requests of each operation, one after the other and again many at once.
    pub(crate) requests: u32,
    /// How many requests at once.
    pub(crate) at_once: usize,
    /// How many whole lifecycles.
    pub(crate) lifecycles: u32,
    /// How many workers wait.
    pub(crate) waiting: u32,
}

/// The clients of one coordinator.
struct Bench {
    pool: Pool,
    /// Speaks as a submitter.
    submitter: Client,
    /// Workers that take what there is.
    workers: Vec<SimulatedWorker>,
}

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<()> {
    waiting::raise_file_limit()?;
    let config = tempfile::NamedTempFile::with_suffix(".toml")?;
    let room = plan.waiting + 10_000;
    std::fs::write(
        config.path(),
        format!("connections-max = {room}\nconnections-per-address-max = {room}\n"),
    )?;

    let bench = Bench::start(config.path(), plan.at_once).await?;
    let bare = bare::Bare::start().await?;
    let mut at_zero = None;
    let mut stored = 0;
    for &size in &plan.stored {
        bench.fill(size.saturating_sub(stored), plan.at_once).await?;
        stored = size;
        line(&format!("with {size} jobs waiting"), "");
        let medians = bench.operations(plan).await?;
        let first = at_zero.get_or_insert_with(|| medians.clone());
        if size != plan.stored[0] {
            for ((name, now), (_, then)) in medians.iter().zip(first.iter()) {
                let ratio = now.as_secs_f64() / then.as_secs_f64();
                line(&format!("  {name}, p50 next to that at {}", plan.stored[0]), &times(ratio));
            }
        }
    }
    line("a bare axum handler", "");
    bare.operation(plan).await?;
    print_disk_sync(&bench.pool.coordinator_data())?;
    drop(bench);

    let bench = Bench::start(config.path(), plan.at_once).await?;
    lifecycles::run(&bench, &bare, plan).await?;
    drop(bench);

    let bench = Bench::start(config.path(), 0).await?;
    waiting::run(&bench, plan.waiting).await
}

fn times(ratio: f64) -> String {
    format!("{ratio:8.2}")
}

fn a_job() -> CreateJob {
    CreateJob { command: "true".to_owned(), ..CreateJob::default() }
}

impl Bench {
    async fn start(config: &Path, workers: usize) -> anyhow::Result<Self> {
        let config = format!("--config={}", config.display());
        // Nobody renews the leases of what is claimed to be reported later.
        let pool = Pool::start(&[&config, "--lease=1h"])?;
        let token = pool.token(Role::Submitter)?;
        // Plain HTTP: what is measured is the coordinator, not the cipher.
        let stranger = Client::new(&[&pool.http_url], Trust::System)?;
        let code = pool.join_code_for(u32::try_from(workers)?.max(1))?;
        let workers = stream::iter(0..workers)
            .map(|_| SimulatedWorker::join_by(&stranger, &code))
            .buffered(8)
            .try_collect()
            .await?;
        Ok(Self { submitter: stranger.with_token(token.into()), pool, workers })
    }

    /// Submits so many more jobs.
    async fn fill(&self, jobs: u32, at_once: usize) -> anyhow::Result<()> {
        if jobs == 0 {
            return Ok(());
        }
        let begun = Instant::now();
        let (client, job) = (&self.submitter, a_job());
        let job = &job;
        stream::iter(0..jobs)
            .map(|_| async move { client.create_job(job).await.map(drop) })
            .buffer_unordered(at_once)
            .try_collect::<()>()
            .await?;
        let took = begun.elapsed();
        line(&format!("{jobs} submissions to fill the queue"), &per_second(jobs, took));
        Ok(())
    }

    /// Measures each operation; gives its name and its median.
    async fn operations(&self, plan: &Plan) -> anyhow::Result<Vec<(&'static str, Duration)>> {
        let (client, job) = (&self.submitter, a_job());
        let job = &job;
        let ids: Mutex<Vec<JobId>> = Mutex::default();
        let claimed: Mutex<Vec<(usize, Assignment)>> = Mutex::default();
        let (ids, claimed) = (&ids, &claimed);
        let turn = AtomicUsize::new(0);
        // Each request comes from the next worker.
        let next = || turn.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        let mut medians = Vec::new();

        let created = measure("create", plan, || async move {
            let made = client.create_job(job).await?;
            lock(ids).push(made.job_id);
            anyhow::Ok(())
        });
        medians.push(("create", created.await?));
        let heard = measure("register", plan, || async {
            Ok(self.workers[next()].register_again().await?)
        });
        medians.push(("register", heard.await?));
        let heard =
            measure("heartbeat", plan, || async { Ok(self.workers[next()].heartbeat().await?) });
        medians.push(("heartbeat", heard.await?));
        let given = measure("get-job", plan, || async {
            let worker = next();
            let jobs = self.workers[worker].claim(0, 1).await?;
            anyhow::ensure!(!jobs.is_empty(), "there was no job to claim");
            lock(claimed).extend(jobs.into_iter().map(|job| (worker, job)));
            Ok(())
        });
        medians.push(("get-job", given.await?));
        let known = lock(ids).clone();
        let (known, turn) = (&known, &turn);
        let told = measure("status", plan, || async move {
            let id = known[turn.fetch_add(7, Ordering::Relaxed) % known.len()];
            client.job_status(id).await?;
            Ok(())
        });
        medians.push(("status", told.await?));
        let recorded = measure("submit-result", plan, || async {
            let (worker, job) = lock(claimed).pop().context("no claimed job is left")?;
            let result = SimulatedWorker::success_of(&job);
            self.workers[worker].client.submit_result(&result).await?;
            Ok(())
        });
        medians.push(("submit-result", recorded.await?));
        Ok(medians)
    }

    async fn ended(&self) -> anyhow::Result<u64> {
        let filter = JobFilter { limit: Some(1), ..JobFilter::default() };
        Ok(self.submitter.list_jobs(&filter).await?.counts.completed)
    }
}

fn lock<T>(values: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    values.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does it one after the other, then many at once; prints both and gives the median of the first.
async fn measure<F: Future<Output = anyhow::Result<()>>>(
    name: &str,
    plan: &Plan,
    once: impl Fn() -> F,
) -> anyhow::Result<Duration> {
    let mut samples = Samples::default();
    for number in 0..plan.requests + WARM_UP {
        let begun = Instant::now();
        once().await?;
        if number >= WARM_UP {
            samples.push(begun.elapsed());
        }
    }
    let begun = Instant::now();
    let together = stream::iter(0..plan.requests).map(|_| once()).buffer_unordered(plan.at_once);
    together.try_collect::<()>().await?;
    let took = begun.elapsed();
    let [p50, p99] = [50, 99].map(|percent| millis(samples.percentile(percent)));
    let many = per_second(plan.requests, took);
    line(
        &format!("  {name}"),
        &format!("p50 {p50:7.3} ms  p99 {p99:7.3} ms  {} at once {many}", plan.at_once),
    );
    Ok(samples.percentile(50))
}

/// Requests before the counting begins: connections and caches.
const WARM_UP: u32 = 50;

fn per_second(events: u32, took: Duration) -> String {
    format!("{:8.0} /s", rate(events, took))
}
