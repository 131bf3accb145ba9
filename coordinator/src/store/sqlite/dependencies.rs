//! Jobs that wait for others: they go on when those completed and fail when one of them did not.

use lull_shared::{ids::JobId, jobs::JobState, time::Timestamp};
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    columns::{Col, RowExt as _},
    jobs,
};
use crate::{lifecycle::Step, model::Changes, store::StoreError};

/// How many waiting jobs are told in the transaction that ended what they wait for; the reaper tells the others.
const AT_ONCE: u32 = 64;

/// What a submission has to wait for.
pub(super) struct Needs {
    /// Jobs that have not ended.
    pub(super) waiting: Vec<i64>,
    /// Why it cannot run any more: one of them did not complete.
    pub(super) broken: Option<String>,
}

pub(super) fn resolve(connection: &Connection, after: &[JobId]) -> Result<Needs, StoreError> {
    let mut needs = Needs { waiting: Vec::new(), broken: None };
    for id in jobs::distinct(after) {
        let found = connection
            .prepare_cached("select seq, state from jobs where id = ?1")?
            .query_row([Col(id)], |row| {
                Ok((row.get::<_, i64>("seq")?, row.word("state", JobState::from_name)?))
            })
            .optional()?;
        match found {
            None => return Err(StoreError::Invalid(format!("after: there is no job {id}"))),
            Some((_, JobState::Completed)) => {}
            Some((seq, JobState::Pending | JobState::Running)) => needs.waiting.push(seq),
            Some((seq, state @ (JobState::Failed | JobState::Cancelled))) => {
                needs.broken.get_or_insert(reason(connection, seq, state)?);
            }
        }
    }
    Ok(needs)
}

pub(super) fn add(connection: &Connection, job: i64, needs: &[i64]) -> Result<(), StoreError> {
    for need in needs {
        connection
            .prepare_cached("insert into dependencies (job, needs) values (?1, ?2)")?
            .execute((job, need))?;
    }
    Ok(())
}

fn reason(connection: &Connection, seq: i64, state: JobState) -> Result<String, StoreError> {
    let (id, name): (Col<JobId>, String) = connection
        .prepare_cached(
            "select jobs.id, specs.name from jobs
               join specs on specs.id = jobs.spec_id where seq = ?1",
        )?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let how = if state == JobState::Failed { "failed" } else { "was cancelled" };
    Ok(format!("it was to run after {} ({name}), which {how}", id.0))
}

/// Tells those who waited for an ended job, or leaves a note for the reaper to tell the rest.
pub(super) fn note_end(
    connection: &Connection,
    seq: i64,
    state: JobState,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let told = tell(connection, seq, state, AT_ONCE, now, changes)?;
    if told == AT_ONCE {
        connection
            .prepare_cached("insert or ignore into ended_needs (job) values (?1)")?
            .execute([seq])?;
    }
    Ok(())
}

/// Tells up to `limit` jobs that waited for ended ones, and how many it told.
pub(super) fn tell_rest(
    connection: &Connection,
    limit: u32,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<u32, StoreError> {
    let mut told = 0;
    while told < limit {
        let ended = connection
            .prepare_cached(
                "select seq, state from ended_needs join jobs on jobs.seq = ended_needs.job limit 1",
            )?
            .query_row([], |row| {
                Ok((row.get::<_, i64>("seq")?, row.word("state", JobState::from_name)?))
            })
            .optional()?;
        let Some((seq, state)) = ended else { break };
        let now_told = tell(connection, seq, state, limit - told, now, changes)?;
        told += now_told;
        if told < limit {
            connection.prepare_cached("delete from ended_needs where job = ?1")?.execute([seq])?;
        }
    }
    Ok(told)
}

fn tell(
    connection: &Connection,
    ended: i64,
    state: JobState,
    limit: u32,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<u32, StoreError> {
    let waiting: Vec<i64> = connection
        .prepare_cached("select job from dependencies where needs = ?1 order by job limit ?2")?
        .query_map((ended, limit), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for job in &waiting {
        connection
            .prepare_cached("delete from dependencies where job = ?1 and needs = ?2")?
            .execute((job, ended))?;
        let pending: bool = connection
            .prepare_cached(
                "update jobs set blocked_by = blocked_by - 1 where seq = ?1 returning state = 'pending'",
            )?
            .query_row([job], |row| row.get(0))?;
        if !pending {
            continue;
        }
        if state == JobState::Completed {
            jobs::refresh(connection, *job, changes)?;
        } else {
            let reason = reason(connection, ended, state)?;
            jobs::close_unstarted(connection, *job, Step::Fail, &reason, now, changes)?;
        }
    }
    Ok(u32::try_from(waiting.len()).unwrap_or(u32::MAX))
}

/// What a job still waits for.
pub(super) fn unmet(connection: &Connection, job: i64) -> Result<Vec<JobId>, StoreError> {
    let needs = connection
        .prepare_cached(
            "select id from dependencies join jobs on jobs.seq = dependencies.needs
              where dependencies.job = ?1 order by dependencies.needs",
        )?
        .query_map([job], |row| row.col("id"))?
        .collect::<Result<_, _>>()?;
    Ok(needs)
}
