//! Jobs as people and programs see them.

use lull_shared::{
    files::Artifact,
    ids::{Digest, JobId, WorkerId},
    jobs::{
        ArrayCounts, Attempt, AttemptEnding, Job, JobCounts, JobFilter, JobList, JobState,
        OnWorkerLost, Requirements,
    },
    output::Stream,
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql};

use super::{
    columns::{Col, RowExt as _},
    dependencies,
    jobs::seq_of,
    output,
};
use crate::{
    model::{NewJob, Spec},
    store::{PAGE_MAX, StoreError},
};

/// Jobs on a page unless told.
const PAGE_USUAL: u32 = 50;

/// All there is to say of a job in one row.
const SELECT_JOB: &str =
    "select jobs.*, specs.file_digest, specs.body as spec, classes.requirements,
        users.name as submitted_by, attempts.hostname, parents.id as array_id,
        arrays.count, arrays.next, arrays.cancelled_unstarted, arrays.failed_unstarted,
        arrays.running, arrays.completed, arrays.failed, arrays.cancelled
      from jobs
      join specs on specs.id = jobs.spec_id
      join classes on classes.id = jobs.class_id
      join users on users.id = jobs.user_id
      left join attempts on attempts.job = jobs.seq and attempts.number = jobs.attempt
      left join jobs as parents on parents.seq = jobs.array
      left join arrays on arrays.job = jobs.seq";

/// A job with its attempts and the end of its output.
pub(super) fn detail(connection: &Connection, id: JobId) -> Result<Job, StoreError> {
    let seq = seq_of(connection, id)?;
    let mut job = summary(connection, id)?;
    job.attempts = connection
        .prepare_cached("select * from attempts where job = ?1 order by number")?
        .query_map([seq], attempt)?
        .collect::<Result<_, _>>()?;
    if job.blocked_by > 0 {
        job.after = dependencies::unmet(connection, seq)?;
    }
    job.stdout = output::shown(connection, seq, job.attempt, Stream::Stdout)?;
    job.stderr = output::shown(connection, seq, job.attempt, Stream::Stderr)?;
    Ok(job)
}

/// A job as lists show it.
pub(super) fn summary(connection: &Connection, id: JobId) -> Result<Job, StoreError> {
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
    let cursor = match filter.cursor.map(|cursor| seq_of(connection, cursor)) {
        Some(Err(StoreError::NotFound(_))) => {
            return Err(StoreError::Invalid("cursor: there is no such job".to_owned()));
        }
        found => found.transpose()?,
    };
    let array = filter.array_id.map(|array| seq_of(connection, array)).transpose()?;
    let mut conditions = Vec::new();
    let mut values: Vec<(&str, &dyn ToSql)> = Vec::new();
    if array.is_some() {
        conditions.push("jobs.array = :array");
        values.push((":array", &array));
    } else if worker.is_none() {
        conditions.push("jobs.array is null");
    }
    if status.is_some() {
        conditions.push("jobs.state = :status");
        values.push((":status", &status));
    }
    if worker.is_some() {
        conditions.push("jobs.worker_id = :worker");
        values.push((":worker", &worker));
    }
    if cursor.is_some() {
        // Jobs of an array are made in the order of their numbers.
        conditions.push(if array.is_some() { "jobs.seq > :cursor" } else { "jobs.seq < :cursor" });
        values.push((":cursor", &cursor));
    }
    if conditions.is_empty() {
        conditions.push("true");
    }
    // One more than the page, to know whether there is another one.
    let more = limit + 1;
    values.push((":more", &more));
    let order = if array.is_some() { "jobs.seq" } else { "jobs.seq desc" };
    let conditions = conditions.join(" and ");
    let sql = format!("{SELECT_JOB} where {conditions} order by {order} limit :more");
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
    let spec: Spec = row.json("spec")?;
    let not_before: Timestamp = row.col("not_before")?;
    let job = Job {
        status: row.word("state", JobState::from_name)?,
        worker_id: row.col_opt::<WorkerId>("worker_id")?,
        hostname: row.get("hostname")?,
        file_url: row.col_opt("file_digest")?.map(file_url),
        exit_code: row.get("exit_code")?,
        error_message: row.get("error_message")?,
        started_at: row.col_opt("started_at")?,
        completed_at: row.col_opt("completed_at")?,
        attempt: row.get("attempt")?,
        priority: row.get("priority")?,
        retries: row.get("retries")?,
        requirements: row.json("requirements")?,
        on_worker_lost: row.json("on_worker_lost")?,
        held: row.get("held")?,
        blocked_by: row.get("blocked_by")?,
        not_before: (not_before != Timestamp::default()).then_some(not_before),
        array_id: row.col_opt("array_id")?,
        index: row.get("array_index")?,
        array: array_counts(row)?,
        resubmitted_from: row.col_opt("resubmitted_from")?,
        cancel_requested: row.get("cancel_requested")?,
        ..waiting(row.col("id")?, spec, row.get("submitted_by")?, row.col("created_at")?)
    };
    Ok((row.get("seq")?, job))
}

/// A job that was just accepted, as [`summary`] would read it.
pub(super) fn accepted(job: &NewJob, spec: Spec, blocked_by: usize, now: Timestamp) -> Job {
    let request = &job.request;
    let items = u32::try_from(request.items.len()).ok().filter(|items| *items > 0);
    let count = request.count.or(items);
    Job {
        file_url: request.file_digest.map(file_url),
        priority: request.priority,
        retries: request.retries,
        requirements: request.requirements.clone(),
        on_worker_lost: request.on_worker_lost,
        held: request.hold,
        blocked_by: u32::try_from(blocked_by).unwrap_or(u32::MAX),
        array: count.map(|count| ArrayCounts { count, pending: count, ..ArrayCounts::default() }),
        ..waiting(job.id, spec, job.submitter.name.clone(), now)
    }
}

/// A job of which no more is known than what it is to do.
fn waiting(job_id: JobId, spec: Spec, submitted_by: String, created_at: Timestamp) -> Job {
    Job {
        job_id,
        status: JobState::Pending,
        name: spec.name,
        worker_id: None,
        hostname: None,
        command: spec.command,
        argv: spec.argv,
        shell: spec.shell,
        on_error: spec.on_error,
        filename: spec.filename,
        file_url: None,
        stdout: None,
        stderr: None,
        exit_code: None,
        error_message: None,
        created_at,
        started_at: None,
        completed_at: None,
        attempt: 0,
        attempts: Vec::new(),
        artifacts: Vec::new(),
        outputs: spec.outputs,
        env_names: spec.env.into_keys().collect(),
        priority: 0,
        retries: 0,
        timeout_secs: spec.timeout_secs,
        max_queue_secs: spec.max_queue_secs,
        requirements: Requirements::default(),
        on_worker_lost: OnWorkerLost::default(),
        on_owner_return: spec.on_owner_return,
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

fn array_counts(row: &Row<'_>) -> rusqlite::Result<Option<ArrayCounts>> {
    let Some(count) = row.get::<_, Option<u32>>("count")? else { return Ok(None) };
    let get = |name: &str| row.get::<_, u32>(name);
    let (running, completed) = (get("running")?, get("completed")?);
    let failed = get("failed")? + get("failed_unstarted")?;
    let cancelled = get("cancelled")? + get("cancelled_unstarted")?;
    let pending = count - running - completed - failed - cancelled;
    Ok(Some(ArrayCounts { count, pending, running, completed, failed, cancelled }))
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
