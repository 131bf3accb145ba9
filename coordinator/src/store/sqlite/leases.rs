//! Leases: who holds a job, renewing, running out, and the end of an attempt.

use std::time::Duration;

use lull_shared::{
    ids::WorkerId,
    jobs::{AttemptEnding, JobState, LeaseKey, OnWorkerLost},
    time::Timestamp,
    workers::WorkerState,
};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{
    blobs,
    columns::{Col, Json, RowExt as _},
    jobs,
    output::{self, Happening},
    workers,
};
use crate::{
    lifecycle::{self, Step},
    model::{
        Appended, AttemptFacts, Changes, EndRules, EndedAttempt, FailReason, NextStep, OutputPiece,
        Recorded, Renewal, Report, SignOfLife,
    },
    store::StoreError,
};

/// An attempt that is the job's current one.
struct Held {
    job: i64,
    key: LeaseKey,
    worker: WorkerId,
    facts: AttemptFacts,
    user: i64,
    /// The lease ran out and the job was put back, but no newer attempt has begun.
    put_back: bool,
}

/// How an attempt ended, as far as the coordinator knows.
struct End<'a> {
    ending: AttemptEnding,
    exit_code: Option<i32>,
    error_message: Option<&'a str>,
    report_hash: Option<[u8; 32]>,
}

impl End<'_> {
    const fn given_up(ending: AttemptEnding, error_message: &'static str) -> Self {
        Self { ending, exit_code: None, error_message: Some(error_message), report_hash: None }
    }
}

const SELECT_HELD: &str = "select seq, id, attempt, worker_id, state, user_id, on_worker_lost,
        cancel_requested, failures, retries, could_not_run, workers_lost from jobs";
// The indexes are named because SQLite, left to itself, may walk over all a worker ever ran.

/// A fault for tests that must find it: whatever a worker says counts for the job's current attempt, whoever runs it.
#[cfg(feature = "fault-unfenced")]
fn find_held(
    connection: &Connection,
    _worker: WorkerId,
    key: LeaseKey,
) -> Result<Option<Held>, StoreError> {
    let held = connection
        .prepare_cached(&format!("{SELECT_HELD} where id = ?1 and state = 'running'"))?
        .query_row([Col(key.job_id)], held)
        .optional()?;
    Ok(held)
}

/// The fence: finds the attempt only while it is the job's current one and the worker's own.
#[cfg(not(feature = "fault-unfenced"))]
fn find_held(
    connection: &Connection,
    worker: WorkerId,
    key: LeaseKey,
) -> Result<Option<Held>, StoreError> {
    let held = connection
        .prepare_cached(&format!(
            "{SELECT_HELD}
              where id = ?1 and attempt = ?2 and worker_id = ?3
                and (state = 'running'
                     or state = 'pending' and exists (select 1 from attempts
                          where job = seq and number = attempt and ending = 'workerLost'))"
        ))?
        .query_row((Col(key.job_id), key.attempt, Col(worker)), held)
        .optional()?;
    Ok(held)
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    Ok(Held {
        job: row.get("seq")?,
        key: LeaseKey { job_id: row.col("id")?, attempt: row.get("attempt")? },
        worker: row.col("worker_id")?,
        facts: AttemptFacts {
            failures: row.get("failures")?,
            retries: row.get("retries")?,
            could_not_run: row.get("could_not_run")?,
            workers_lost: row.get("workers_lost")?,
            on_worker_lost: row.json::<OnWorkerLost>("on_worker_lost")?,
            cancel_requested: row.get("cancel_requested")?,
            seed: row.get::<_, i64>("seq")?.cast_unsigned() << 16 ^ row.get::<_, u64>("attempt")?,
        },
        user: row.get("user_id")?,
        put_back: row.word("state", JobState::from_name)? == JobState::Pending,
    })
}

/// Finds the attempt and, if its job had been put back, makes it the worker's again.
fn hold(
    connection: &Connection,
    worker: WorkerId,
    key: LeaseKey,
    expires_at: Timestamp,
    changes: &mut Changes,
) -> Result<Held, StoreError> {
    let mut held = find_held(connection, worker, key)?.ok_or(StoreError::LeaseLost)?;
    if !held.put_back {
        return Ok(held);
    }
    connection
        .prepare_cached(
            "update jobs set state = 'running', ready = 0, lease_expires_at = ?2, not_before = 0, held = 0,
                    workers_lost = workers_lost - 1, error_message = null
              where seq = ?1",
        )?
        .execute((held.job, Col(expires_at)))?;
    let hostname: String = connection
        .prepare_cached(
            "update attempts set ended_at = null, ending = null, error_message = null
              where job = ?1 and number = ?2 returning hostname",
        )?
        .query_row((held.job, key.attempt), |row| row.get(0))?;
    let resumed = Happening::Started { hostname: &hostname };
    output::add_event(connection, held.job, key.attempt, &resumed)?;
    held.facts.workers_lost = held.facts.workers_lost.saturating_sub(1);
    jobs::note_change(connection, held.job, changes)?;
    Ok(held)
}

pub(super) fn heartbeat(
    connection: &Connection,
    life: &SignOfLife,
    now: Timestamp,
    lease: Duration,
    rules: EndRules,
    changes: &mut Changes,
) -> Result<Renewal, StoreError> {
    let (drain, is_news) = connection
        .prepare_cached(
            "select draining, state <> ?2 or reason is not ?3 from workers where id = ?1",
        )?
        .query_row(params![Col(life.worker), Json(life.state), life.reason.map(Json)], |row| {
            Ok((row.get(0)?, row.get::<_, bool>(1)?))
        })
        .optional()?
        .ok_or(StoreError::NotFound("worker"))?;
    connection
        .prepare_cached(
            "update workers set last_heartbeat = ?2, state = ?3, reason = ?4 where id = ?1",
        )?
        .execute(params![Col(life.worker), Col(now), Json(life.state), life.reason.map(Json)])?;
    if is_news {
        changes.workers.push(life.worker);
    }
    let mut renewal = Renewal { drain, ..Renewal::default() };
    for key in &life.running {
        let held = match hold(connection, life.worker, *key, now + lease, changes) {
            Ok(held) => held,
            Err(StoreError::LeaseLost) => {
                renewal.lost.push(*key);
                continue;
            }
            Err(error) => return Err(error),
        };
        connection
            .prepare_cached(
                "update jobs set lease_expires_at = ?4
                  where seq = ?1 and attempt = ?2 and worker_id = ?3 and state = 'running'",
            )?
            .execute((held.job, key.attempt, Col(life.worker), Col(now + lease)))?;
        if held.facts.cancel_requested {
            renewal.cancel.push(*key);
        }
    }
    if life.state == WorkerState::Offline {
        for left in held_by(connection, life.worker)? {
            if !life.running.contains(&left.key) {
                let end = End::given_up(AttemptEnding::GivenBack, "the PC's worker was stopped");
                renewal.ended.push(end_attempt(connection, &left, &end, now, rules, changes)?);
            }
        }
    }
    Ok(renewal)
}

fn held_by(connection: &Connection, worker: WorkerId) -> Result<Vec<Held>, StoreError> {
    let held = connection
        .prepare_cached(&format!(
            "{SELECT_HELD} indexed by jobs_held
              where worker_id = ?1 and lease_expires_at is not null and state = 'running'"
        ))?
        .query_map([Col(worker)], held)?
        .collect::<Result<_, _>>()?;
    Ok(held)
}

/// Puts jobs back whose claim the worker never heard of.
pub(super) fn unclaim(
    connection: &Connection,
    worker: WorkerId,
    keys: &[LeaseKey],
    now: Timestamp,
    rules: EndRules,
    changes: &mut Changes,
) -> Result<Vec<EndedAttempt>, StoreError> {
    let end = End::given_up(AttemptEnding::GivenBack, "the PC went away before it got the job");
    let mut ended = Vec::new();
    for key in keys {
        if let Some(held) = find_held(connection, worker, *key)?.filter(|held| !held.put_back) {
            ended.push(end_attempt(connection, &held, &end, now, rules, changes)?);
        }
    }
    Ok(ended)
}

pub(super) fn expire(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
    rules: EndRules,
    changes: &mut Changes,
) -> Result<Vec<EndedAttempt>, StoreError> {
    let expired: Vec<Held> = connection
        .prepare_cached(&format!(
            "{SELECT_HELD} indexed by jobs_leased where lease_expires_at <= ?1 and state = 'running'
              order by lease_expires_at limit ?2"
        ))?
        .query_map((Col(now), limit), held)?
        .collect::<Result<_, _>>()?;
    let end = End::given_up(AttemptEnding::WorkerLost, "the PC that ran it fell silent");
    expired.iter().map(|held| end_attempt(connection, held, &end, now, rules, changes)).collect()
}

pub(super) fn append_output(
    connection: &Connection,
    worker: WorkerId,
    key: LeaseKey,
    piece: &OutputPiece,
    now: Timestamp,
    lease: Duration,
    changes: &mut Changes,
) -> Result<Appended, StoreError> {
    let held = hold(connection, worker, key, now + lease, changes)?;
    let next_offset = output::append(connection, held.job, key.attempt, piece)?;
    Ok(Appended { next_offset, cancel: held.facts.cancel_requested })
}

pub(super) fn finish(
    connection: &Connection,
    report: &Report,
    now: Timestamp,
    rules: EndRules,
    changes: &mut Changes,
) -> Result<Recorded, StoreError> {
    let held = match hold(connection, report.worker, report.key, now, changes) {
        Ok(held) => held,
        // What was reported before is not held any more, and the same report gets the same reply.
        Err(StoreError::LeaseLost) => {
            return reported_before(connection, report)?.ok_or(StoreError::LeaseLost);
        }
        Err(error) => return Err(error),
    };
    for piece in &report.output {
        output::append(connection, held.job, report.key.attempt, piece)?;
    }
    for (position, artifact) in report.artifacts.iter().enumerate() {
        blobs::require(connection, artifact.digest)?;
        connection
            .prepare_cached(
                "insert into artifacts (job, attempt, position, name, digest, size_bytes)
                 values (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                held.job,
                report.key.attempt,
                position,
                artifact.name,
                Col(artifact.digest),
                artifact.size_bytes,
            ])?;
    }
    let end = End {
        ending: report.ending,
        exit_code: report.exit_code,
        error_message: report.error_message.as_deref(),
        report_hash: Some(report.hash),
    };
    let ended = end_attempt(connection, &held, &end, now, rules, changes)?;
    Ok(Recorded { state: ended.next.state(), new: true })
}

/// The reply that the same report of the same worker got before.
fn reported_before(
    connection: &Connection,
    report: &Report,
) -> Result<Option<Recorded>, StoreError> {
    let before = connection
        .prepare_cached(
            "select attempts.reply_state from attempts
               join jobs on jobs.seq = attempts.job
              where jobs.id = ?1 and attempts.number = ?2 and attempts.worker_id = ?3
                and attempts.report_hash = ?4",
        )?
        .query_row(
            params![Col(report.key.job_id), report.key.attempt, Col(report.worker), report.hash],
            |row| {
                let state = row.word("reply_state", JobState::from_name)?;
                Ok(Recorded { state, new: false })
            },
        )
        .optional()?;
    Ok(before)
}

/// Ends an attempt and moves its job on, as the retry rule says.
fn end_attempt(
    connection: &Connection,
    held: &Held,
    end: &End<'_>,
    now: Timestamp,
    rules: EndRules,
    changes: &mut Changes,
) -> Result<EndedAttempt, StoreError> {
    let next = (rules.retry)(&held.facts, end.ending, now);
    let step = match next {
        NextStep::Complete => Step::Complete,
        NextStep::Fail(_) => Step::Fail,
        NextStep::Cancel => Step::Cancel,
        NextStep::Requeue { .. } => Step::Requeue,
    };
    let state = lifecycle::after(JobState::Running, step).ok_or(StoreError::LeaseLost)?;
    close_attempt(connection, held, end, state, now)?;
    // A backoff that ends now is none: 0 puts the job straight into the line.
    let not_before = match next {
        NextStep::Requeue { not_before } if not_before > now => not_before,
        NextStep::Requeue { .. } | NextStep::Complete | NextStep::Fail(_) | NextStep::Cancel => {
            Timestamp::default()
        }
    };
    let message = message(next, end.error_message);
    connection
        .prepare_cached(
            "update jobs
                set state = :state, not_before = :not_before, lease_expires_at = null,
                    ready = :state = 'pending' and :not_before = 0 and held = 0 and blocked_by = 0,
                    completed_at = :completed, exit_code = :exit_code, error_message = :message,
                    failures = failures + :failed,
                    could_not_run = could_not_run + :could_not_run,
                    workers_lost = workers_lost + :worker_lost
              where seq = :job and attempt = :number and worker_id = :worker and state = 'running'",
        )?
        .execute(named_params! {
            ":state": state.name(),
            ":not_before": Col(not_before),
            ":completed": state.is_terminal().then_some(Col(now)),
            ":exit_code": end.exit_code,
            ":message": message,
            ":failed": matches!(end.ending, AttemptEnding::CommandFailed | AttemptEnding::TimedOut),
            ":could_not_run": end.ending == AttemptEnding::CouldNotRun,
            ":worker_lost": end.ending == AttemptEnding::WorkerLost,
            ":job": held.job,
            ":number": held.key.attempt,
            ":worker": Col(held.worker),
        })?;
    let happening = if state.is_terminal() {
        Happening::Ended
    } else {
        Happening::Requeued { ending: end.ending, error_message: end.error_message }
    };
    output::add_event(connection, held.job, held.key.attempt, &happening)?;
    if state.is_terminal() {
        jobs::after_end(connection, held.job, state, now, changes)?;
    } else {
        jobs::announce(connection, held.job, changes)?;
    }
    workers::note_health(
        connection,
        held.worker,
        held.user,
        end.ending,
        now,
        rules.health,
        changes,
    )?;
    Ok(EndedAttempt { key: held.key, worker: held.worker, next })
}

/// Writes down how an attempt ended.
fn close_attempt(
    connection: &Connection,
    held: &Held,
    end: &End<'_>,
    state: JobState,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "update attempts set ended_at = :now, ending = :ending, exit_code = :exit_code,
                    error_message = :message, report_hash = :hash, reply_state = :state
              where job = :job and number = :number",
        )?
        .execute(named_params! {
            ":now": Col(now),
            ":ending": end.ending.name(),
            ":exit_code": end.exit_code,
            ":message": end.error_message,
            ":hash": end.report_hash,
            ":state": state.name(),
            ":job": held.job,
            ":number": held.key.attempt,
        })?;
    Ok(())
}

/// What the job says of its end or its delay, for a person.
fn message(next: NextStep, error_message: Option<&str>) -> Option<String> {
    let given_up = match next {
        NextStep::Fail(FailReason::TriedTooOften) => "no PC could run it",
        NextStep::Fail(FailReason::Poison) => {
            "it is set aside as poison, because five PCs fell silent while they ran it"
        }
        NextStep::Fail(FailReason::WorkerLost) => "it is to run at most once",
        NextStep::Cancel => return Some("cancelled".to_owned()),
        NextStep::Fail(FailReason::CommandFailed | FailReason::Refused)
        | NextStep::Complete
        | NextStep::Requeue { .. } => return error_message.map(str::to_owned),
    };
    Some(error_message.map_or_else(
        || given_up.to_owned(),
        |message| format!("{message}; not tried again: {given_up}"),
    ))
}
