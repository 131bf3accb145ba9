//! The registry of workers.

use std::{collections::HashMap, time::Duration};

use lull_shared::{
    credentials::SecretHash,
    ids::WorkerId,
    jobs::LeaseKey,
    time::Timestamp,
    workers::{Worker, WorkerState},
};
use rusqlite::{Connection, named_params};

use super::{
    columns::{Col, Json, RowExt as _},
    credentials,
};
use crate::{
    model::{Enrolment, Machine},
    store::{OFFLINE_AFTER, StoreError},
};

pub(super) fn register(
    connection: &Connection,
    worker: WorkerId,
    machine: &Machine,
    enrolment: &Enrolment,
    now: Timestamp,
    grace: Duration,
) -> Result<(), StoreError> {
    let known = credentials::worker_secret(connection, worker)?;
    match (known, enrolment) {
        (Some(_), Enrolment::Known) => {}
        (None, Enrolment::Known) => return Err(StoreError::NotFound("worker")),
        // The reply to an enrolment was lost and it came again: the worker's own secret proves it.
        (Some(secret), Enrolment::Join { worker_secret, .. }) if secret.matches(worker_secret) => {}
        (Some(_), Enrolment::Join { .. }) => {
            return Err(StoreError::Conflict("another PC holds this worker id"));
        }
        (None, Enrolment::Join { code, code_secret, worker_secret }) => {
            credentials::spend_join_code(connection, *code, code_secret, now)?;
            insert(connection, worker, &SecretHash::of(worker_secret), now)?;
        }
    }
    update(connection, worker, machine, now)?;
    connection
        .prepare_cached(
            "update jobs indexed by jobs_held set lease_expires_at = min(lease_expires_at, ?2)
              where worker_id = ?1 and state = 'running'",
        )?
        .execute((Col(worker), Col(now + grace)))?;
    Ok(())
}

fn insert(
    connection: &Connection,
    worker: WorkerId,
    secret: &SecretHash,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into workers (id, secret_hash, hostname, os, arch, cpu_count, memory_bytes, version,
                 slots, sandbox_level, state, registered_at, last_heartbeat)
             values (?1, ?2, '', '', '', 0, 0, '', 0, 0, 'ready', ?3, ?3)",
        )?
        .execute((Col(worker), secret.as_bytes(), Col(now)))?;
    Ok(())
}

fn update(
    connection: &Connection,
    worker: WorkerId,
    machine: &Machine,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "update workers
                set hostname = :hostname, os = :os, arch = :arch, cpu_count = :cpu_count,
                    memory_bytes = :memory_bytes, version = :version, slots = :slots,
                    sandbox_level = :level, state = 'ready', reason = null, last_heartbeat = :now
              where id = :id",
        )?
        .execute(named_params! {
            ":hostname": machine.hostname,
            ":os": machine.os,
            ":arch": machine.arch,
            ":cpu_count": machine.cpu_count,
            ":memory_bytes": i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX),
            ":version": machine.version,
            ":slots": machine.slots,
            ":level": Col(machine.sandbox_level),
            ":now": Col(now),
            ":id": Col(worker),
        })?;
    Ok(())
}

pub(super) fn list(connection: &Connection, now: Timestamp) -> Result<Vec<Worker>, StoreError> {
    let mut running: HashMap<WorkerId, Vec<LeaseKey>> = HashMap::new();
    let mut statement = connection.prepare_cached(
        "select worker_id, id, attempt from jobs where state = 'running' order by seq",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = LeaseKey { job_id: row.col("id")?, attempt: row.get("attempt")? };
        running.entry(row.col("worker_id")?).or_default().push(key);
    }
    let workers = connection
        .prepare_cached("select * from workers order by hostname, id")?
        .query_map([], |row| {
            let id: WorkerId = row.col("id")?;
            let last_heartbeat: Timestamp = row.col("last_heartbeat")?;
            let silent = now.since(last_heartbeat) > OFFLINE_AFTER;
            Ok(Worker {
                worker_id: id,
                hostname: row.get("hostname")?,
                os: row.get("os")?,
                arch: row.get("arch")?,
                cpu_count: row.get("cpu_count")?,
                memory_bytes: row.get("memory_bytes")?,
                version: row.get("version")?,
                status: if silent { WorkerState::Offline } else { row.json("state")? },
                reason: row.get::<_, Option<Json<_>>>("reason")?.map(|reason| reason.0),
                last_heartbeat,
                registered_at: row.col("registered_at")?,
                slots: row.get("slots")?,
                running: running.remove(&id).unwrap_or_default(),
                sandbox_level: row.col("sandbox_level")?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(workers)
}

pub(super) fn mark_silent(
    connection: &Connection,
    now: Timestamp,
) -> Result<Vec<WorkerId>, StoreError> {
    let silent = connection
        .prepare_cached(
            "update workers set state = 'offline', reason = null
              where state <> 'offline' and last_heartbeat < ?1 returning id",
        )?
        .query_map([Col(now - OFFLINE_AFTER)], |row| row.col("id"))?
        .collect::<Result<_, _>>()?;
    Ok(silent)
}
