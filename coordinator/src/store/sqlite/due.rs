//! What falls due by the clock alone: pauses that end, jobs that waited too long, and those who wait for ended jobs.

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
