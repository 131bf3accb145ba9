//! Jobs as people move them: accepting, cancelling, holding, releasing, submitting again.

use std::collections::BTreeSet;

use lull_shared::{
    ids::{Digest, JobId, TokenId},
    jobs::{CreateJob, Job, JobState, Requirements},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, named_params};

use super::{
    arrays, blobs,
    columns::{Col, Json, RowExt as _},
    dependencies,
    output::{self, Happening},
    show,
};
use crate::{
    lifecycle::{self, Step},
    model::{Changes, Created, JobChange, NewJob, ReadyJob, Spec, Submitter},
    store::StoreError,
};

pub(super) fn create(
    connection: &Connection,
    job: &NewJob,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<Created, StoreError> {
    let user = user(connection, &job.submitter)?;
    if let Some(job) = made_before(connection, job, user)? {
        return Ok(Created { job, new: false });
    }
    let request = &job.request;
    if let Some(digest) = request.file_digest {
        blobs::require(connection, digest)?;
        blobs::touch(connection, digest, now)?;
    }
    let needs = dependencies::resolve(connection, &request.after)?;
    let is_array = request.count.is_some() || !request.items.is_empty();
    let deadline =
        request.max_queue_secs.map(|secs| now + std::time::Duration::from_secs(secs.into()));
    let spec = spec(&job.name, request);
    let ready = !request.hold && needs.waiting.is_empty() && needs.broken.is_none();
    let sql = "insert into jobs (id, state, ready, class_id, priority, user_id, spec_id, is_array,
                   retries, on_worker_lost, held, blocked_by, queue_deadline, idempotency_key,
                   body_hash, created_at)
               values (:id, 'pending', :ready, :class, :priority, :user, :spec, :is_array,
                   :retries, :on_worker_lost, :held, :blocked_by, :deadline, :key,
                   :body_hash, :created_at)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":id": Col(job.id),
        ":ready": ready,
        ":class": class(connection, &request.requirements)?,
        ":priority": request.priority,
        ":user": user,
        ":spec": add_spec(connection, &spec, request.file_digest)?,
        ":is_array": is_array,
        ":retries": request.retries,
        ":on_worker_lost": Json(request.on_worker_lost),
        ":held": request.hold,
        ":blocked_by": needs.waiting.len(),
        ":deadline": deadline.map(Col),
        ":key": job.idempotency.as_ref().map(|it| &it.key),
        ":body_hash": job.idempotency.as_ref().map(|it| it.body_hash),
        ":created_at": Col(now),
    })?;
    let seq = connection.last_insert_rowid();
    dependencies::add(connection, seq, &needs.waiting)?;
    if is_array {
        arrays::add(connection, seq, request)?;
    }
    if let Some(reason) = needs.broken {
        close_unstarted(connection, seq, Step::Fail, &reason, now, changes)?;
        return Ok(Created { job: show::summary(connection, job.id)?, new: true });
    }
    let accepted = show::accepted(job, spec, needs.waiting.len(), now);
    let (id, state) = (job.id, accepted.status);
    changes.jobs.push(JobChange { job: id, state, attempt: 0, array: None });
    if ready {
        changes.ready.push(ReadyJob {
            requirements: request.requirements.clone(),
            input: request.file_digest,
            jobs: accepted.array.map_or(1, |array| array.count),
        });
    }
    Ok(Created { job: accepted, new: true })
}

/// Refuses what was just accepted when more jobs of the user wait now than may.
pub(super) fn check_room(
    connection: &Connection,
    token_id: TokenId,
    waiting_max: u64,
) -> Result<(), StoreError> {
    let waiting: u64 = connection
        .prepare_cached("select waiting from users where token_id = ?1")?
        .query_row([Col(token_id)], |row| row.get(0))?;
    if waiting > waiting_max {
        return Err(StoreError::QueueFull { waiting_max });
    }
    Ok(())
}

/// The row of whoever submits.
fn user(connection: &Connection, submitter: &Submitter) -> Result<i64, StoreError> {
    let id = Col(submitter.token_id);
    let known = connection
        .prepare_cached("select id from users where token_id = ?1 and weight = ?2")?
        .query_row((id, submitter.weight), |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let user = connection
        .prepare_cached(
            "insert into users (token_id, name, weight) values (?1, ?2, ?3)
             on conflict (token_id) do update set name = excluded.name, weight = excluded.weight
             returning id",
        )?
        .query_row((id, &submitter.name, submitter.weight), |row| row.get(0))?;
    Ok(user)
}

/// The class of jobs that ask for the same.
fn class(connection: &Connection, requirements: &Requirements) -> Result<i64, StoreError> {
    let known = connection
        .prepare_cached("select id from classes where requirements = ?1")?
        .query_row([Json(requirements)], |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    connection
        .prepare_cached("insert into classes (requirements) values (?1)")?
        .execute([Json(requirements)])?;
    Ok(connection.last_insert_rowid())
}

/// The part of a submission that is kept as it is.
fn spec(name: &str, request: &CreateJob) -> Spec {
    Spec {
        name: name.to_owned(),
        command: request.command.clone(),
        argv: request.argv.clone(),
        shell: request.shell,
        on_error: request.on_error,
        filename: request.filename.clone(),
        env: request.env.clone(),
        outputs: request.outputs.clone(),
        timeout_secs: request.timeout_secs,
        max_queue_secs: request.max_queue_secs,
        on_owner_return: request.on_owner_return,
    }
}

fn add_spec(
    connection: &Connection,
    spec: &Spec,
    input: Option<Digest>,
) -> Result<i64, StoreError> {
    connection
        .prepare_cached("insert into specs (name, file_digest, body) values (?1, ?2, ?3)")?
        .execute((&spec.name, input.map(Col), Json(spec)))?;
    Ok(connection.last_insert_rowid())
}

fn made_before(
    connection: &Connection,
    job: &NewJob,
    user: i64,
) -> Result<Option<Job>, StoreError> {
    let Some(idempotency) = &job.idempotency else { return Ok(None) };
    let before: Option<(Col<JobId>, [u8; 32])> = connection
        .prepare_cached(
            "select id, body_hash from jobs where user_id = ?1 and idempotency_key = ?2",
        )?
        .query_row((user, &idempotency.key), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match before {
        None => Ok(None),
        Some((id, hash)) if hash == idempotency.body_hash => {
            show::summary(connection, id.0).map(Some)
        }
        Some(_) => Err(StoreError::KeyReused),
    }
}

/// A new job that asks for what an ended one asked for.
pub(super) fn resubmit(
    connection: &Connection,
    from: JobId,
    id: JobId,
    submitter: &Submitter,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<Job, StoreError> {
    let old = seq_of(connection, from)?;
    if !show::summary(connection, from)?.status.is_terminal() {
        return Err(StoreError::Conflict("the job has not ended yet"));
    }
    let input: Option<Col<Digest>> = connection
        .prepare_cached(
            "select specs.file_digest from jobs join specs on specs.id = jobs.spec_id where seq = ?1",
        )?
        .query_row([old], |row| row.get(0))?;
    if let Some(Col(digest)) = input {
        blobs::touch(connection, digest, now)?;
    }
    let user = user(connection, submitter)?;
    connection
        .prepare_cached(
            "insert into jobs (id, state, ready, class_id, priority, user_id, spec_id, is_array, array_index,
                 retries, on_worker_lost, queue_deadline, resubmitted_from, created_at)
             select ?1, 'pending', 1, class_id, priority, ?2, spec_id, is_array, array_index,
                 retries, on_worker_lost,
                 ?3 + 1000 * json_extract((select body from specs where id = spec_id), '$.maxQueueSecs'),
                 id, ?3
               from jobs where seq = ?4",
        )?
        .execute((Col(id), user, Col(now), old))?;
    let seq = connection.last_insert_rowid();
    arrays::copy(connection, old, seq)?;
    announce(connection, seq, changes)?;
    show::summary(connection, id)
}

pub(super) fn cancel(
    connection: &Connection,
    id: JobId,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<Job, StoreError> {
    let seq = seq_of(connection, id)?;
    let job = show::summary(connection, id)?;
    match job.status {
        JobState::Cancelled => {}
        JobState::Completed | JobState::Failed => {
            return Err(StoreError::Conflict("the job has ended already"));
        }
        JobState::Pending | JobState::Running if job.array.is_some() => {
            arrays::cancel(connection, seq, now, changes)?;
        }
        JobState::Pending => {
            request_cancel(connection, seq)?;
            close_unstarted(
                connection,
                seq,
                Step::Cancel,
                "cancelled before it ran",
                now,
                changes,
            )?;
        }
        JobState::Running => {
            request_cancel(connection, seq)?;
            note_change(connection, seq, changes)?;
        }
    }
    show::summary(connection, id)
}

pub(super) fn request_cancel(connection: &Connection, seq: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("update jobs set cancel_requested = 1 where seq = ?1")?
        .execute([seq])?;
    Ok(())
}

/// Stops a waiting job from being claimed, or lets it be claimed again.
pub(super) fn set_held(
    connection: &Connection,
    id: JobId,
    held: bool,
    changes: &mut Changes,
) -> Result<Job, StoreError> {
    let seq = seq_of(connection, id)?;
    let job = show::summary(connection, id)?;
    let step = if held { Step::Hold } else { Step::Release };
    // What is left of an array waits, whatever runs of it.
    let possible = lifecycle::after(job.status, step).is_some()
        || job.array.is_some() && job.status == JobState::Running;
    if !possible {
        let running = job.status == JobState::Running;
        let why = if running { "the job runs already" } else { "the job has ended already" };
        return Err(StoreError::Conflict(why));
    }
    if job.held != held {
        connection
            .prepare_cached("update jobs set held = ?2 where seq = ?1")?
            .execute((seq, held))?;
        refresh(connection, seq, changes)?;
    }
    show::summary(connection, id)
}

/// The order number of a job, by which other tables refer to it.
pub(super) fn seq_of(connection: &Connection, id: JobId) -> Result<i64, StoreError> {
    connection
        .prepare_cached("select seq from jobs where id = ?1")?
        .query_row([Col(id)], |row| row.get(0))
        .optional()?
        .ok_or(StoreError::NotFound("job"))
}

/// Ends a job that does not run: `step` is to fail or to cancel.
pub(super) fn close_unstarted(
    connection: &Connection,
    seq: i64,
    step: Step,
    reason: &str,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let state = lifecycle::after(JobState::Pending, step)
        .ok_or(StoreError::Conflict("the job does not wait"))?;
    let attempt: Option<u32> = connection
        .prepare_cached(
            "update jobs set state = ?2, ready = 0, held = 0, not_before = 0, queue_deadline = null,
                    completed_at = ?3, error_message = ?4
              where seq = ?1 and state = 'pending' and is_array = 0 returning attempt",
        )?
        .query_row((seq, state.name(), Col(now), reason), |row| row.get(0))
        .optional()?;
    match attempt {
        Some(attempt) => {
            output::add_event(connection, seq, attempt, &Happening::Ended)?;
            after_end(connection, seq, state, now, changes)
        }
        None => arrays::give_up_rest(connection, seq, step, reason, now, changes),
    }
}

/// What follows from a job's end: its array may have ended, and others may go on or fail.
pub(super) fn after_end(
    connection: &Connection,
    seq: i64,
    state: JobState,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    if let Some(array) = note_change(connection, seq, changes)? {
        arrays::end_if_done(connection, array, now, changes)?;
    }
    dependencies::note_end(connection, seq, state, now, changes)
}

/// Says that a job is not as it was, and gives the order number of its array.
pub(super) fn note_change(
    connection: &Connection,
    seq: i64,
    changes: &mut Changes,
) -> Result<Option<i64>, StoreError> {
    let (change, array) = connection
        .prepare_cached(
            "select id, state, attempt, array,
                    (select id from jobs as arrays where arrays.seq = jobs.array) as array_id
               from jobs where seq = ?1",
        )?
        .query_row([seq], |row| {
            let change = JobChange {
                job: row.col("id")?,
                state: row.word("state", JobState::from_name)?,
                attempt: row.get("attempt")?,
                array: row.col_opt("array_id")?,
            };
            Ok((change, row.get("array")?))
        })?;
    changes.jobs.push(change);
    Ok(array)
}

/// Says that a job is not as it was, and that it can be claimed if it can.
pub(super) fn announce(
    connection: &Connection,
    seq: i64,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    note_change(connection, seq, changes)?;
    changes.ready.extend(if_ready(connection, seq)?);
    Ok(())
}

/// What there is to claim of a job that may be claimed now.
pub(super) fn if_ready(connection: &Connection, seq: i64) -> Result<Option<ReadyJob>, StoreError> {
    let ready = connection
        .prepare_cached(
            "select requirements, specs.file_digest, coalesce(arrays.count - arrays.next, 1) as jobs
               from jobs join classes on classes.id = jobs.class_id
               join specs on specs.id = jobs.spec_id
               left join arrays on arrays.job = jobs.seq
              where seq = ?1 and ready = 1",
        )?
        .query_row([seq], |row| {
            Ok(ReadyJob {
                requirements: row.json("requirements")?,
                input: row.col_opt("file_digest")?,
                jobs: row.get("jobs")?,
            })
        })
        .optional()?;
    Ok(ready)
}

/// Settles whether a job may be claimed, after something it waited for has changed.
pub(super) fn refresh(
    connection: &Connection,
    seq: i64,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "update jobs
                set ready = held = 0 and blocked_by = 0 and not_before = 0
                    and case is_array
                        when 0 then state = 'pending'
                        else state in ('pending', 'running') and exists (select 1 from arrays
                             where job = seq and next + cancelled_unstarted + failed_unstarted < count)
                        end
              where seq = ?1",
        )?
        .execute([seq])?;
    announce(connection, seq, changes)
}

/// Jobs without a repetition, in the order given.
pub(super) fn distinct(ids: &[JobId]) -> Vec<JobId> {
    let mut seen = BTreeSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}
