//! Jobs as a whole: accepting them, cancelling them, showing them.

use std::collections::BTreeMap;

use lull_shared::{
    files::Artifact,
    ids::{Digest, JobId, WorkerId},
    jobs::{Attempt, AttemptEnding, Job, JobCounts, JobFilter, JobList, JobState},
    output::Stream,
    time::Timestamp,
    workers::SandboxLevel,
};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, named_params};

use super::{
    blobs,
    columns::{Col, Json, RowExt as _},
    output::{self, Happening},
};
use crate::{
    model::{Created, NewJob},
    store::{PAGE_MAX, StoreError},
};

/// Jobs on a page unless told.
const PAGE_USUAL: u32 = 50;

/// All columns of a job, with the host name of its last attempt.
const SELECT_JOB: &str = "select jobs.*, attempts.hostname from jobs
      left join attempts on attempts.job = jobs.seq and attempts.number = jobs.attempt";

pub(super) fn create(
    connection: &Connection,
    job: &NewJob,
    now: Timestamp,
) -> Result<Created, StoreError> {
    if let Some(job) = made_before(connection, job)? {
        return Ok(Created { job, new: false });
    }
    if let Some(digest) = job.file_digest {
        blobs::require(connection, digest)?;
    }
    let sql = "insert into jobs (id, state, name, command, file_digest, filename, env, outputs,
                   min_sandbox, on_worker_lost, token_id, submitted_by, idempotency_key, body_hash,
                   created_at)
               values (:id, 'pending', :name, :command, :file_digest, :filename, :env, :outputs,
                   :min_sandbox, :on_worker_lost, :token_id, :submitted_by, :idempotency_key,
                   :body_hash, :created_at)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":id": Col(job.id),
        ":name": job.name,
        ":command": job.command,
        ":file_digest": job.file_digest.map(Col),
        ":filename": job.filename,
        ":env": Json(&job.env),
        ":outputs": Json(&job.outputs),
        ":min_sandbox": Col(job.min_sandbox),
        ":on_worker_lost": Json(job.on_worker_lost),
        ":token_id": Col(job.submitter.token_id),
        ":submitted_by": job.submitter.name,
        ":idempotency_key": job.idempotency.as_ref().map(|it| &it.key),
        ":body_hash": job.idempotency.as_ref().map(|it| it.body_hash),
        ":created_at": Col(now),
    })?;
    Ok(Created { job: summary(connection, job.id)?, new: true })
}

fn made_before(connection: &Connection, job: &NewJob) -> Result<Option<Job>, StoreError> {
    let Some(idempotency) = &job.idempotency else { return Ok(None) };
    let before: Option<(Col<JobId>, [u8; 32])> = connection
        .prepare_cached(
            "select id, body_hash from jobs where token_id = ?1 and idempotency_key = ?2",
        )?
        .query_row((Col(job.submitter.token_id), &idempotency.key), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    match before {
        None => Ok(None),
        Some((id, hash)) if hash == idempotency.body_hash => Ok(Some(summary(connection, id.0)?)),
        Some(_) => Err(StoreError::KeyReused),
    }
}

pub(super) fn cancel(
    connection: &Connection,
    id: JobId,
    now: Timestamp,
) -> Result<Job, StoreError> {
    let seq = seq_of(connection, id)?;
    let job = summary(connection, id)?;
    match job.status {
        JobState::Pending => {
            connection
                .prepare_cached(
                    "update jobs set state = 'cancelled', completed_at = ?2, cancel_requested = 1,
                            error_message = 'cancelled before it ran'
                      where seq = ?1 and state = 'pending'",
                )?
                .execute((seq, Col(now)))?;
            output::add_event(connection, seq, job.attempt, &Happening::Ended)?;
        }
        JobState::Running => {
            connection
                .prepare_cached(
                    "update jobs set cancel_requested = 1 where seq = ?1 and state = 'running'",
                )?
                .execute([seq])?;
        }
        JobState::Cancelled => {}
        JobState::Completed | JobState::Failed => {
            return Err(StoreError::Conflict("the job has ended already"));
        }
    }
    summary(connection, id)
}

/// The order number of a job, by which other tables refer to it.
pub(super) fn seq_of(connection: &Connection, id: JobId) -> Result<i64, StoreError> {
    connection
        .prepare_cached("select seq from jobs where id = ?1")?
        .query_row([Col(id)], |row| row.get(0))
        .optional()?
        .ok_or(StoreError::NotFound("job"))
}

/// A job with its attempts and the end of its output.
pub(super) fn detail(connection: &Connection, id: JobId) -> Result<Job, StoreError> {
    let seq = seq_of(connection, id)?;
    let mut job = summary(connection, id)?;
    job.attempts = connection
        .prepare_cached("select * from attempts where job = ?1 order by number")?
        .query_map([seq], attempt)?
        .collect::<Result<_, _>>()?;
    job.stdout = output::shown(connection, seq, job.attempt, Stream::Stdout)?;
    job.stderr = output::shown(connection, seq, job.attempt, Stream::Stderr)?;
    Ok(job)
}

/// A job as lists show it.
fn summary(connection: &Connection, id: JobId) -> Result<Job, StoreError> {
    let (seq, mut job) = connection
        .prepare_cached(&format!("{SELECT_JOB} where jobs.id = ?1"))?
        .query_row([Col(id)], job)
        .optional()?
        .ok_or(StoreError::NotFound("job"))?;
    job.artifacts = artifacts(connection, seq, job.attempt)?;
    Ok(job)
}

pub(super) fn list(connection: &Connection, filter: &JobFilter) -> Result<JobList, StoreError> {
    let limit = filter.limit.unwrap_or(PAGE_USUAL).clamp(1, PAGE_MAX);
    let (status, worker) = (filter.status.map(JobState::name), filter.worker_id.map(Col));
    let before = match filter.cursor.map(|cursor| seq_of(connection, cursor)) {
        Some(Err(StoreError::NotFound(_))) => {
            return Err(StoreError::Invalid("cursor: there is no such job".to_owned()));
        }
        found => found.transpose()?,
    };
    let mut conditions = vec!["true"];
    let mut values: Vec<(&str, &dyn ToSql)> = Vec::new();
    if status.is_some() {
        conditions.push("jobs.state = :status");
        values.push((":status", &status));
    }
    if worker.is_some() {
        conditions.push("jobs.worker_id = :worker");
        values.push((":worker", &worker));
    }
    if before.is_some() {
        conditions.push("jobs.seq < :before");
        values.push((":before", &before));
    }
    // One more than the page, to know whether there is another one.
    let more = limit + 1;
    values.push((":more", &more));
    let conditions = conditions.join(" and ");
    let sql = format!("{SELECT_JOB} where {conditions} order by jobs.seq desc limit :more");
    let mut found = connection
        .prepare_cached(&sql)?
        .query_map(values.as_slice(), job)?
        .collect::<Result<Vec<_>, _>>()?;
    let is_last = found.len() <= limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| !is_last).map(|(_, job)| job.job_id);
    let jobs = found
        .into_iter()
        .map(|(seq, mut job)| {
            job.artifacts = artifacts(connection, seq, job.attempt)?;
            Ok(job)
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(JobList { jobs, next, counts: counts(connection)? })
}

fn counts(connection: &Connection) -> Result<JobCounts, StoreError> {
    let mut counts = JobCounts::default();
    let mut statement = connection.prepare_cached("select state, jobs from job_counts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let jobs = row.get("jobs")?;
        match row.word("state", JobState::from_name)? {
            JobState::Pending => counts.pending = jobs,
            JobState::Running => counts.running = jobs,
            JobState::Completed => counts.completed = jobs,
            JobState::Failed => counts.failed = jobs,
            JobState::Cancelled => counts.cancelled = jobs,
        }
    }
    Ok(counts)
}

fn artifacts(connection: &Connection, job: i64, attempt: u32) -> Result<Vec<Artifact>, StoreError> {
    let artifacts = connection
        .prepare_cached(
            "select name, digest, size_bytes from artifacts
              where job = ?1 and attempt = ?2 order by position",
        )?
        .query_map((job, attempt), |row| {
            Ok(Artifact {
                name: row.get("name")?,
                digest: row.col("digest")?,
                size_bytes: row.get("size_bytes")?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(artifacts)
}

/// Address of a file, relative to the coordinator.
pub(super) fn file_url(digest: Digest) -> String {
    format!("/api/files/{digest}")
}

fn job(row: &Row<'_>) -> rusqlite::Result<(i64, Job)> {
    let job = Job {
        job_id: row.col("id")?,
        status: row.word("state", JobState::from_name)?,
        name: row.get("name")?,
        worker_id: row.col_opt::<WorkerId>("worker_id")?,
        hostname: row.get("hostname")?,
        command: row.get("command")?,
        filename: row.get("filename")?,
        file_url: row.col_opt("file_digest")?.map(file_url),
        stdout: None,
        stderr: None,
        exit_code: row.get("exit_code")?,
        error_message: row.get("error_message")?,
        created_at: row.col("created_at")?,
        started_at: row.col_opt("started_at")?,
        completed_at: row.col_opt("completed_at")?,
        attempt: row.get("attempt")?,
        attempts: Vec::new(),
        artifacts: Vec::new(),
        outputs: row.json("outputs")?,
        env_names: row.json::<BTreeMap<String, String>>("env")?.into_keys().collect(),
        min_sandbox: row.col::<SandboxLevel>("min_sandbox")?,
        on_worker_lost: row.json("on_worker_lost")?,
        submitted_by: row.get("submitted_by")?,
        cancel_requested: row.get("cancel_requested")?,
    };
    Ok((row.get("seq")?, job))
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        attempt: row.get("number")?,
        worker_id: row.col("worker_id")?,
        hostname: row.get("hostname")?,
        started_at: row.col("started_at")?,
        ended_at: row.col_opt("ended_at")?,
        ending: match row.get::<_, Option<String>>("ending")? {
            Some(_) => Some(row.word("ending", AttemptEnding::from_name)?),
            None => None,
        },
        exit_code: row.get("exit_code")?,
        error_message: row.get("error_message")?,
    })
}
