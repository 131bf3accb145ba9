//! Arrays: many jobs of one submission. A job of an array is made when a worker claims it, so an array of a hundred
//! thousand costs no more to accept, or to cancel, than one of ten.

use std::collections::BTreeMap;

use lull_shared::{jobs::CreateJob, jobs::JobState, time::Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{
    columns::{Col, Json, RowExt as _},
    jobs,
    output::{self, Happening},
};
use crate::{lifecycle::Step, model::Changes, store::StoreError};

/// How many items one row keeps.
const CHUNK: usize = 256;

/// How an array stands.
struct Standing {
    unstarted: u32,
    /// Handed out and not ended.
    open: u32,
    failed: u32,
    cancelled: u32,
}

pub(super) fn add(
    connection: &Connection,
    seq: i64,
    request: &CreateJob,
) -> Result<(), StoreError> {
    let items = u32::try_from(request.items.len()).unwrap_or(u32::MAX);
    connection
        .prepare_cached("insert into arrays (job, count) values (?1, ?2)")?
        .execute((seq, request.count.unwrap_or(items)))?;
    for (chunk, items) in request.items.chunks(CHUNK).enumerate() {
        connection
            .prepare_cached("insert into array_items (job, chunk, items) values (?1, ?2, ?3)")?
            .execute((seq, chunk, Json(items)))?;
    }
    Ok(())
}

/// Gives a job that is submitted again what the first one had of an array: all of it, or its own item.
pub(super) fn copy(connection: &Connection, from: i64, to: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into arrays (job, count) select ?2, count from arrays where job = ?1",
        )?
        .execute((from, to))?;
    connection
        .prepare_cached(
            "insert into array_items (job, chunk, items)
             select ?2, chunk, items from array_items
              where job = coalesce((select array from jobs where seq = ?1), ?1)
                and (select is_array or array is null or chunk = array_index / 256 from jobs where seq = ?1)",
        )?
        .execute((from, to))?;
    Ok(())
}

/// Takes the next number of an array; the array is ready no more when it was the last.
pub(super) fn next_index(
    connection: &Connection,
    array: i64,
    now: Timestamp,
) -> Result<u32, StoreError> {
    let (index, is_last): (u32, bool) = connection
        .prepare_cached(
            "update arrays set next = next + 1 where job = ?1 and next < count
             returning next - 1, next = count",
        )?
        .query_row([array], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if index == 0 || is_last {
        connection
            .prepare_cached(
                "update jobs set state = 'running', started_at = coalesce(started_at, ?2),
                        queue_deadline = null, ready = ready and not ?3
                  where seq = ?1",
            )?
            .execute((array, Col(now), is_last))?;
    }
    Ok(index)
}

/// What a job of an array finds in its environment besides its own.
pub(super) fn environment(
    connection: &Connection,
    seq: i64,
    index: u32,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut env = BTreeMap::from([("LULL_INDEX".to_owned(), index.to_string())]);
    let items: Option<Json<Vec<String>>> = connection
        .prepare_cached(
            "select items from array_items
              where chunk = ?2 and job = coalesce((select array from jobs where seq = ?1), ?1)",
        )?
        .query_row((seq, index as usize / CHUNK), |row| row.get(0))
        .optional()?;
    if let Some(item) = items.and_then(|Json(mut items)| {
        let position = index as usize % CHUNK;
        (position < items.len()).then(|| items.swap_remove(position))
    }) {
        env.insert("LULL_ITEM".to_owned(), item);
    }
    Ok(env)
}

/// Cancels an array: what was not handed out never is, what waits again is cancelled, and what runs is asked to end.
pub(super) fn cancel(
    connection: &Connection,
    array: i64,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    jobs::request_cancel(connection, array)?;
    let open: Vec<(i64, bool)> = connection
        .prepare_cached(
            "select seq, state = 'running' from jobs
              where array = ?1 and state in ('pending', 'running')",
        )?
        .query_map([array], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (seq, runs) in open {
        jobs::request_cancel(connection, seq)?;
        if runs {
            jobs::note_change(connection, seq, changes)?;
        } else {
            let reason = "cancelled before it ran again";
            jobs::close_unstarted(connection, seq, Step::Cancel, reason, now, changes)?;
        }
    }
    give_up_rest(connection, array, Step::Cancel, "cancelled", now, changes)
}

/// Ends what was not handed out of an array yet: `step` is to fail or to cancel.
pub(super) fn give_up_rest(
    connection: &Connection,
    array: i64,
    step: Step,
    reason: &str,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let column = if step == Step::Cancel { "cancelled_unstarted" } else { "failed_unstarted" };
    connection
        .prepare_cached(&format!(
            "update arrays set {column} = {column} + count - next - cancelled_unstarted - failed_unstarted
              where job = ?1 and next + cancelled_unstarted + failed_unstarted < count"
        ))?
        .execute([array])?;
    connection
        .prepare_cached(
            "update jobs set ready = 0, held = 0, queue_deadline = null,
                    error_message = coalesce(error_message, ?2)
              where seq = ?1 and state in ('pending', 'running')",
        )?
        .execute((array, reason))?;
    jobs::note_change(connection, array, changes)?;
    end_if_done(connection, array, now, changes)
}

/// Ends an array of which nothing is left to do.
pub(super) fn end_if_done(
    connection: &Connection,
    array: i64,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let standing = connection
        .prepare_cached("select * from arrays where job = ?1")?
        .query_row([array], standing)?;
    if standing.unstarted > 0 || standing.open > 0 {
        return Ok(());
    }
    let (old, cancel_requested): (JobState, bool) = connection
        .prepare_cached("select state, cancel_requested from jobs where seq = ?1")?
        .query_row([array], |row| {
            Ok((row.word("state", JobState::from_name)?, row.get("cancel_requested")?))
        })?;
    if old.is_terminal() {
        return Ok(());
    }
    let state = if cancel_requested || standing.failed == 0 && standing.cancelled > 0 {
        JobState::Cancelled
    } else if standing.failed > 0 {
        JobState::Failed
    } else {
        JobState::Completed
    };
    let failed = format!("{} of its jobs failed", standing.failed);
    connection
        .prepare_cached(
            "update jobs set state = ?2, completed_at = ?3, ready = 0,
                    error_message = coalesce(error_message, ?4)
              where seq = ?1",
        )?
        .execute((array, state.name(), Col(now), (state == JobState::Failed).then_some(failed)))?;
    output::add_event(connection, array, 0, &Happening::Ended)?;
    jobs::after_end(connection, array, state, now, changes)
}

fn standing(row: &Row<'_>) -> rusqlite::Result<Standing> {
    let get = |name: &str| row.get::<_, u32>(name);
    let next = get("next")?;
    let (completed, failed, cancelled) = (get("completed")?, get("failed")?, get("cancelled")?);
    let (cancelled_before, failed_before) = (get("cancelled_unstarted")?, get("failed_unstarted")?);
    Ok(Standing {
        unstarted: get("count")? - next - cancelled_before - failed_before,
        open: next - completed - failed - cancelled,
        failed: failed + failed_before,
        cancelled: cancelled + cancelled_before,
    })
}
