//! What falls due by the clock alone: pauses that end, jobs that waited too long, and those who wait for ended jobs.

use std::time::Duration;

use lull_shared::time::Timestamp;
use rusqlite::Connection;

use super::{claims, columns::Col, dependencies, jobs};
use crate::{lifecycle::Step, model::Changes, store::StoreError};

/// Does up to about `limit` of it, and tells whether there may be more.
pub(super) fn tick(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
    changes: &mut Changes,
) -> Result<bool, StoreError> {
    claims::end_backoffs(connection, now, changes)?;
    let late: Vec<i64> = connection
        .prepare_cached(
            "select seq from jobs indexed by jobs_with_deadline where queue_deadline <= ?1 limit ?2",
        )?
        .query_map((Col(now), limit), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for seq in &late {
        let reason = "no PC took it in the time it was to wait at most";
        jobs::close_unstarted(connection, *seq, Step::Fail, reason, now, changes)?;
    }
    let told = dependencies::tell_rest(connection, limit, now, changes)?;
    Ok(told >= limit || late.len() >= limit as usize)
}

/// Brings near again what lies further ahead than it can, after the clock was set back.
pub(super) fn set_right(
    connection: &Connection,
    now: Timestamp,
    lease: Duration,
    pause: Duration,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("update jobs set lease_expires_at = ?1 where lease_expires_at > ?1")?
        .execute([Col(now + lease)])?;
    connection
        .prepare_cached(
            "update jobs set not_before = ?1
              where state = 'pending' and not_before > 0 and not_before > ?1",
        )?
        .execute([Col(now + pause)])?;
    connection
        .prepare_cached("update workers set last_heartbeat = ?1 where last_heartbeat > ?1")?
        .execute([Col(now)])?;
    Ok(())
}
