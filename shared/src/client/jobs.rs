//! What people and programs ask about jobs and PCs.

use std::time::Duration;

use reqwest::Method;

use super::{Client, ClientError};
use crate::{
    ids::{JobId, WorkerId},
    jobs::{CreateJob, Explanation, Job, JobFilter, JobList, JobQuery, JobRef},
    workers::{DrainWorker, Worker, WorkerList, WorkerRef},
};

/// How often a submission is sent before its failure is believed; its key keeps it one job.
const CREATE_TRIES: u32 = 3;

impl Client {
    /// `POST /api/jobs/create`. Gives the submission an idempotency key when it has none, so a lost reply
    /// is asked for again without making a second job.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `file_missing` when its file has to be uploaded first.
    pub async fn create_job(&self, job: &CreateJob) -> Result<Job, ClientError> {
        let mut job = job.clone();
        job.idempotency_key.get_or_insert_with(|| JobId::generate().to_string());
        let mut tries = 1;
        loop {
            match self.json(Method::POST, "/api/jobs/create", &job).await {
                Err(ClientError::Unreachable { .. }) if tries < CREATE_TRIES => {
                    tokio::time::sleep(Duration::from_millis(200) * tries).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// `POST /api/jobs/cancel`.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `conflict` for a job that has ended.
    pub async fn cancel_job(&self, job_id: JobId) -> Result<Job, ClientError> {
        self.json(Method::POST, "/api/jobs/cancel", &JobRef { job_id }).await
    }

    /// `POST /api/jobs/hold`: a waiting job waits until somebody releases it.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `conflict` for a job that runs or has ended.
    pub async fn hold_job(&self, job_id: JobId) -> Result<Job, ClientError> {
        self.json(Method::POST, "/api/jobs/hold", &JobRef { job_id }).await
    }

    /// `POST /api/jobs/release`: a held job may run.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `conflict` for a job that has ended.
    pub async fn release_job(&self, job_id: JobId) -> Result<Job, ClientError> {
        self.json(Method::POST, "/api/jobs/release", &JobRef { job_id }).await
    }

    /// `POST /api/jobs/resubmit`: a new job that asks for what a finished one asked for.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `conflict` for a job that has not ended, `file_missing` when its input is kept no more.
    pub async fn resubmit_job(&self, job_id: JobId) -> Result<Job, ClientError> {
        self.json(Method::POST, "/api/jobs/resubmit", &JobRef { job_id }).await
    }

    /// `GET /api/jobs/explain`: why a job waits.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `not_found` for an unknown job.
    pub async fn explain_job(&self, job_id: JobId) -> Result<Explanation, ClientError> {
        self.get("/api/jobs/explain", &JobQuery { job_id }).await
    }

    /// `POST /api/workers/drain`: a PC ends what runs and takes nothing new, or takes jobs again.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `not_found` for an unknown PC.
    pub async fn drain_worker(
        &self,
        worker_id: WorkerId,
        drain: bool,
    ) -> Result<Worker, ClientError> {
        self.json(Method::POST, "/api/workers/drain", &DrainWorker { worker_id, drain }).await
    }

    /// `POST /api/workers/release`: a PC that was set aside takes jobs again.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `not_found` for an unknown PC.
    pub async fn release_worker(&self, worker_id: WorkerId) -> Result<Worker, ClientError> {
        self.json(Method::POST, "/api/workers/release", &WorkerRef { worker_id }).await
    }

    /// `GET /api/jobs/status`: one job with its attempts and the end of its output.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; `not_found` for an unknown job.
    pub async fn job_status(&self, job_id: JobId) -> Result<Job, ClientError> {
        self.get("/api/jobs/status", &JobQuery { job_id }).await
    }

    /// `GET /api/jobs`: a page of jobs, newest first.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub async fn list_jobs(&self, filter: &JobFilter) -> Result<JobList, ClientError> {
        self.get("/api/jobs", filter).await
    }

    /// `GET /api/workers`: the PCs of the pool.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub async fn list_workers(&self) -> Result<WorkerList, ClientError> {
        self.get("/api/workers", &()).await
    }
}
