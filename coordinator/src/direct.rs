//! Direct mode: commands run on the coordinator's own machine, watched by whoever asked for them.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use async_stream::stream;
use axum::{body::Bytes, response::sse::Event};
use futures_util::Stream as Events;
use lull_shared::{
    archive::Limits,
    files::Artifact,
    ids::JobId,
    jobs::{CreateJob, Job, JobState},
    output::{OutputView, Stream},
    problem::ProblemKind,
    time::Timestamp,
};
use lull_worker::{
    runner::{self, Control, KillReason, RunEnding, RunOutcome, RunSpec},
    sandbox::{Sandbox, default_sandbox},
};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    blobs::{Blobs, Staged},
    model::JobEvent,
    routes::{
        AppState,
        events::{self, Form},
        problem::ApiError,
    },
    scheduler::Scheduler,
    tls,
};

/// How many direct runs there may be at once.
const AT_ONCE: usize = 2;
/// How many pieces of output may wait for the caller before the commands are held back.
const PIECES_MAX: usize = 64;
/// Direct runs have one attempt.
const ATTEMPT: u32 = 1;

/// Runs commands on this machine.
pub struct Direct {
    folder: PathBuf,
    hostname: String,
    sandbox: OnceCell<Arc<dyn Sandbox>>,
    places: Arc<Semaphore>,
}

impl Direct {
    /// Prepares direct mode, removing what runs that were cut off have left.
    ///
    /// # Errors
    /// When that cannot be removed.
    pub fn open(data_dir: &std::path::Path) -> anyhow::Result<Self> {
        let folder = data_dir.join("direct");
        runner::remove_folder(&folder)
            .with_context(|| format!("could not empty {}", folder.display()))?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self {
            folder,
            hostname: tls::host_name().unwrap_or_else(|| "coordinator".to_owned()),
            sandbox: OnceCell::new(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Starts a run. It ends when its [`Run`] is dropped, at the latest.
    ///
    /// # Errors
    /// `rate_limited` when enough runs are under way.
    pub fn start(
        self: &Arc<Self>,
        state: &AppState,
        job: CreateJob,
        file: Option<Staged>,
        submitted_by: String,
    ) -> Result<Run, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail = format!("{AT_ONCE} commands run on the coordinator already");
            ApiError::refused(ProblemKind::RateLimited, detail)
        })?;
        let job = unstored(job, submitted_by, &self.hostname, state.scheduler.now());
        let (control, controlled) = Control::new();
        let (sink, output) = mpsc::channel(PIECES_MAX);
        let (done, ended) = oneshot::channel();
        let task = Task {
            direct: Arc::clone(self),
            scheduler: Arc::clone(&state.scheduler),
            blobs: state.blobs.clone(),
            place,
            file,
            job: job.clone(),
        };
        tokio::spawn(async move {
            let job = task.run(sink, controlled).await;
            // Nobody waits for it when the caller has gone.
            let _ = done.send(job);
        });
        let shutdown = state.shutdown.clone();
        Ok(Run {
            job,
            hostname: self.hostname.clone(),
            output,
            ended,
            guard: KillOnDrop(control),
            shutdown,
        })
    }
}

/// A direct run under way, as its caller sees it.
pub struct Run {
    job: Job,
    hostname: String,
    output: mpsc::Receiver<(Stream, Bytes)>,
    ended: oneshot::Receiver<Job>,
    guard: KillOnDrop,
    shutdown: tokio_util::sync::CancellationToken,
}

struct KillOnDrop(Control);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill(KillReason::Cancelled);
    }
}

impl Run {
    /// What happens, to the end. Dropping it kills the run.
    pub(crate) fn events(self, view: OutputView) -> impl Events<Item = Event> + Send + 'static {
        let Self { job, hostname, mut output, ended, guard, shutdown } = self;
        stream! {
            let _guard = guard;
            let mut form = Form::new(view);
            let mut offsets = [0_u64; 2];
            for sent in form.of(JobEvent::Started { attempt: ATTEMPT, hostname }) {
                yield events::event(&sent, None);
            }
            while let Some(piece) = shutdown.run_until_cancelled(output.recv()).await {
                let Some((stream, bytes)) = piece else { break };
                let next = &mut offsets[usize::from(stream == Stream::Stderr)];
                let offset = *next;
                *next += bytes.len() as u64;
                let happened = JobEvent::Output { attempt: ATTEMPT, stream, offset, bytes };
                for sent in form.of(happened) {
                    yield events::event(&sent, None);
                }
            }
            if shutdown.is_cancelled() {
                return;
            }
            let job = ended.await.unwrap_or_else(|_| failed(job));
            for sent in form.of(JobEvent::Ended { job: Box::new(job) }) {
                yield events::event(&sent, None);
            }
        }
    }
}

/// The part of a run that outlives its caller until everything is cleaned up.
struct Task {
    direct: Arc<Direct>,
    scheduler: Arc<Scheduler>,
    blobs: Blobs,
    place: OwnedSemaphorePermit,
    file: Option<Staged>,
    job: Job,
}

impl Task {
    async fn run(self, sink: runner::OutputSink, controlled: runner::Controlled) -> Job {
        let folder = self.direct.folder.join(self.job.job_id.to_string());
        let spec = RunSpec {
            folder: folder.clone(),
            program: runner::Program::lines(&self.job.command),
            env: std::collections::BTreeMap::new(),
            time_limit: None,
            input: self.file.as_ref().and_then(|file| file.local_path().ok()),
            outputs: self.job.outputs.clone(),
            limits: Limits::default(),
            keeps_work: false,
        };
        tracing::info!(job.id = %self.job.job_id, "direct run began");
        let sandbox = Arc::clone(self.direct.sandbox.get_or_init(default_sandbox).await);
        let outcome = runner::run(spec, sandbox, sink, controlled).await;
        let job = self.settle(outcome).await;
        let removed = tokio::task::spawn_blocking(move || runner::remove_folder(&folder)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!("folder of a direct run not removed; the next start does it");
        }
        tracing::info!(job.id = %job.job_id, job.state = job.status.name(), "direct run ended");
        drop(self.place);
        job
    }

    /// The job as it ended, with its outputs in the file store.
    async fn settle(&self, outcome: RunOutcome) -> Job {
        let mut job = self.job.clone();
        job.completed_at = Some(self.scheduler.now());
        match outcome.ending {
            RunEnding::Exited { exit_code, error_message } => {
                job.status = if exit_code == 0 { JobState::Completed } else { JobState::Failed };
                job.exit_code = Some(exit_code);
                job.error_message = error_message;
            }
            RunEnding::Killed(_) => job.status = JobState::Cancelled,
            RunEnding::Failed { kind: _, message } => {
                job.status = JobState::Failed;
                job.error_message = Some(message);
            }
        }
        if let Some(outputs) = outcome.outputs {
            match self.keep(&outputs.path).await {
                Ok(artifact) => job.artifacts.push(artifact),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "outputs not stored");
                    job.status = JobState::Failed;
                    job.error_message = Some("the outputs could not be stored".to_owned());
                }
            }
        }
        job
    }

    async fn keep(&self, zip: &std::path::Path) -> anyhow::Result<Artifact> {
        let recording = self.blobs.recording().await;
        let stored = self.blobs.put_file(zip).await?;
        self.scheduler.record_blob(stored).await?;
        drop(recording);
        let (name, digest) = ("outputs.zip".to_owned(), stored.digest);
        Ok(Artifact { name, digest, size_bytes: stored.size_bytes })
    }
}

/// The job of a direct run; the store never sees it.
fn unstored(request: CreateJob, submitted_by: String, hostname: &str, now: Timestamp) -> Job {
    let first_line = request.command.lines().map(str::trim).find(|line| !line.is_empty());
    Job {
        job_id: JobId::generate(),
        status: JobState::Running,
        name: first_line.unwrap_or_default().chars().take(80).collect(),
        worker_id: None,
        hostname: Some(hostname.to_owned()),
        command: request.command,
        filename: request.filename,
        file_url: None,
        stdout: None,
        stderr: None,
        exit_code: None,
        error_message: None,
        created_at: now,
        started_at: Some(now),
        completed_at: None,
        attempt: ATTEMPT,
        attempts: Vec::new(),
        artifacts: Vec::new(),
        outputs: request.outputs,
        env_names: Vec::new(),
        argv: Vec::new(),
        shell: None,
        on_error: request.on_error,
        priority: 0,
        retries: 0,
        timeout_secs: None,
        max_queue_secs: None,
        requirements: request.requirements,
        on_worker_lost: request.on_worker_lost,
        on_owner_return: request.on_owner_return,
        held: false,
        blocked_by: 0,
        after: Vec::new(),
        not_before: None,
        array_id: None,
        index: None,
        array: None,
        resubmitted_from: None,
        submitted_by,
        cancel_requested: false,
    }
}

fn failed(mut job: Job) -> Job {
    job.status = JobState::Failed;
    job.error_message = Some("the run broke off; the coordinator's log says why".to_owned());
    job
}
