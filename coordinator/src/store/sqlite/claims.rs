//! Claiming: which jobs begin their next attempt, and finding out which could.
//!
//! The statements name their index: left to itself, SQLite may choose one that walks over every job
//! which waits.

use std::{collections::BTreeMap, time::Duration};

use lull_shared::{
    ids::{Digest, JobId},
    jobs::Assignment,
    time::Timestamp,
    workers::SandboxLevel,
};
use rusqlite::{Connection, OptionalExtension as _, named_params};

use super::{
    columns::{Col, RowExt as _},
    jobs,
    output::{self, Happening},
};
use crate::{
    model::{Claimed, Offer, PlacementRule},
    store::StoreError,
};

pub(super) fn claim(
    connection: &Connection,
    offer: Offer,
    rule: PlacementRule,
    now: Timestamp,
    lease: Duration,
) -> Result<Claimed, StoreError> {
    let (hostname, level) = connection
        .prepare_cached("select hostname, sandbox_level from workers where id = ?1")?
        .query_row([Col(offer.worker)], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Col<SandboxLevel>>(1)?.0))
        })
        .optional()?
        .ok_or(StoreError::NotFound("worker"))?;
    end_backoffs(connection, now)?;
    let jobs = best(connection, rule(level), offer.max)?
        .into_iter()
        .map(|seq| start(connection, seq, offer, &hostname, now, lease))
        .collect::<Result<_, _>>()?;
    Ok(Claimed { jobs, level })
}

/// Makes jobs claimable whose backoff is over.
fn end_backoffs(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "update jobs indexed by jobs_in_backoff set not_before = 0
              where state = 'pending' and not_before > 0 and not_before <= ?1",
        )?
        .execute([Col(now)])?;
    Ok(())
}

/// The best jobs that ask for one of these levels: the front of each requirement's own line is looked
/// at and nothing else, however many jobs wait.
fn best(
    connection: &Connection,
    levels: &[SandboxLevel],
    max: u32,
) -> Result<Vec<i64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select priority, seq from jobs indexed by jobs_claimable
          where state = 'pending' and not_before = 0 and min_sandbox = ?1
          order by priority desc, seq limit ?2",
    )?;
    let mut found: Vec<(i64, i64)> = Vec::new();
    for level in levels {
        let rows = statement.query_map((Col(*level), max), |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            found.push(row?);
        }
    }
    found.sort_by_key(|(priority, seq)| (-priority, *seq));
    Ok(found.into_iter().take(max as usize).map(|(_, seq)| seq).collect())
}

/// Starts the next attempt of a job.
fn start(
    connection: &Connection,
    seq: i64,
    offer: Offer,
    hostname: &str,
    now: Timestamp,
    lease: Duration,
) -> Result<Assignment, StoreError> {
    let assignment = connection
        .prepare_cached(
            "update jobs
                set state = 'running', attempt = attempt + 1, worker_id = :worker, started_at = :now,
                    lease_expires_at = :expires, exit_code = null, error_message = null
              where seq = :seq and state = 'pending'
             returning id, attempt, name, command, filename, file_digest, env, outputs, min_sandbox,
                       submitted_by",
        )?
        .query_row(
            named_params! {
                ":worker": Col(offer.worker),
                ":now": Col(now),
                ":expires": Col(now + lease),
                ":seq": seq,
            },
            |row| {
                let digest = row.col_opt::<Digest>("file_digest")?;
                Ok(Assignment {
                    job_id: row.col::<JobId>("id")?,
                    attempt: row.get("attempt")?,
                    lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
                    name: row.get("name")?,
                    command: row.get("command")?,
                    filename: row.get("filename")?,
                    file_url: digest.map(jobs::file_url),
                    file_digest: digest,
                    env: row.json::<BTreeMap<String, String>>("env")?,
                    outputs: row.json("outputs")?,
                    min_sandbox: row.col("min_sandbox")?,
                    submitted_by: row.get("submitted_by")?,
                })
            },
        )?;
    connection
        .prepare_cached(
            "insert into attempts (job, number, worker_id, hostname, started_at)
             values (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((seq, assignment.attempt, Col(offer.worker), hostname, Col(now)))?;
    output::add_event(connection, seq, assignment.attempt, &Happening::Started { hostname })?;
    Ok(assignment)
}

/// How many jobs could be claimed now, for each level they ask for.
pub(super) fn claimable(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(SandboxLevel, u32)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select (select count(*) from (select 1 from jobs indexed by jobs_claimable
                  where state = 'pending' and not_before = 0 and min_sandbox = ?1 limit ?3))
              + (select count(*) from (select 1 from jobs indexed by jobs_in_backoff
                  where state = 'pending' and not_before > 0 and not_before <= ?2
                    and min_sandbox = ?1 limit ?3))",
    )?;
    let mut found = Vec::new();
    for level in SandboxLevel::ALL {
        let count: u32 = statement.query_row((Col(level), Col(now), limit), |row| row.get(0))?;
        if count > 0 {
            found.push((level, count.min(limit)));
        }
    }
    Ok(found)
}
