//! Removing what is not kept any longer.

use lull_shared::time::Timestamp;
use rusqlite::Connection;

use super::columns::Col;
use crate::{model::Keeping, store::StoreError};

/// Removes ended jobs, oldest first, and tells how many rows of jobs.
pub(super) fn jobs(
    connection: &Connection,
    keeping: Keeping,
    now: Timestamp,
    limit: u32,
) -> Result<u32, StoreError> {
    let ended: u64 = connection
        .prepare_cached(
            "select sum(jobs) from job_counts where state in ('completed', 'failed', 'cancelled')",
        )?
        .query_row([], |row| row.get(0))?;
    let mut too_many = ended.saturating_sub(keeping.jobs_max);
    let mut removed = 0;
    let mut statement = connection.prepare_cached(
        "select seq, is_array, completed_at <= ?1 as is_old,
                coalesce((select completed + failed + cancelled + failed_unstarted + cancelled_unstarted
                            from arrays where job = seq), 1) as jobs
           from jobs indexed by jobs_ended
          where completed_at is not null and array is null
            and not exists (select 1 from ended_needs where job = seq)
          order by completed_at limit ?2",
    )?;
    let oldest: Vec<(i64, bool, bool, u64)> = statement
        .query_map((Col(now - keeping.jobs), limit), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    for (seq, is_array, is_old, jobs) in oldest {
        if removed >= limit || !is_old && too_many == 0 {
            break;
        }
        if is_array {
            removed += remove_members(connection, seq, limit - removed)?;
            if removed >= limit {
                // The rest of it follows with the next pass.
                break;
            }
        }
        remove(connection, seq)?;
        removed += 1;
        too_many = too_many.saturating_sub(jobs);
    }
    Ok(removed)
}

fn remove_members(connection: &Connection, array: i64, limit: u32) -> Result<u32, StoreError> {
    let members: Vec<i64> = connection
        .prepare_cached("select seq from jobs where array = ?1 order by array_index limit ?2")?
        .query_map((array, limit), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for seq in &members {
        remove(connection, *seq)?;
    }
    Ok(u32::try_from(members.len()).unwrap_or(u32::MAX))
}

/// Removes one job and all that hangs on it.
fn remove(connection: &Connection, seq: i64) -> Result<(), StoreError> {
    for sql in [
        "delete from events where job = ?1",
        "delete from streams where job = ?1",
        "delete from artifacts where job = ?1",
        "delete from attempts where job = ?1",
        "delete from dependencies where job = ?1",
        "delete from array_items where job = ?1",
        "delete from arrays where job = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([seq])?;
    }
    let spec: i64 = connection
        .prepare_cached("delete from jobs where seq = ?1 returning spec_id")?
        .query_row([seq], |row| row.get(0))?;
    connection
        .prepare_cached(
            "delete from specs where id = ?1 and not exists (select 1 from jobs where spec_id = ?1)",
        )?
        .execute([spec])?;
    Ok(())
}
