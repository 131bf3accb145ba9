//! The registry of workers.

use std::{collections::HashMap, time::Duration};

use lull_shared::{
    credentials::SecretHash,
    ids::WorkerId,
    jobs::{AttemptEnding, LeaseKey},
    time::Timestamp,
    workers::{Worker, WorkerState},
};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::{
    columns::{Col, Json, RowExt as _},
    credentials,
};
use crate::{
    model::{Changes, Enrolment, HealthRule, Machine},
    store::{OFFLINE_AFTER, StoreError},
};

pub(super) fn register(
    connection: &Connection,
    worker: WorkerId,
    machine: &Machine,
    enrolment: &Enrolment,
    now: Timestamp,
    grace: Duration,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    changes.workers.push(worker);
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
              where worker_id = ?1 and lease_expires_at is not null and state = 'running'",
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
                    sandbox_level = :level, labels = :labels, network = :network, state = 'ready',
                    reason = null, failed_users = '[]', sick_since = null, last_heartbeat = :now
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
            ":labels": Json(&machine.labels),
            ":network": Json(machine.network),
            ":now": Col(now),
            ":id": Col(worker),
        })?;
    Ok(())
}

pub(super) fn list(connection: &Connection, now: Timestamp) -> Result<Vec<Worker>, StoreError> {
    let mut running: HashMap<WorkerId, Vec<LeaseKey>> = HashMap::new();
    let mut statement = connection.prepare_cached(
        "select worker_id, id, attempt from jobs where lease_expires_at is not null order by seq",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = LeaseKey { job_id: row.col("id")?, attempt: row.get("attempt")? };
        running.entry(row.col("worker_id")?).or_default().push(key);
    }
    let workers = connection
        .prepare_cached("select * from workers order by hostname, id")?
        .query_map([], |row| {
            let id = row.col("id")?;
            worker(row, running.remove(&id).unwrap_or_default(), now)
        })?
        .collect::<Result<_, _>>()?;
    Ok(workers)
}

/// One worker, with what it runs.
pub(super) fn find(
    connection: &Connection,
    id: WorkerId,
    now: Timestamp,
) -> Result<Worker, StoreError> {
    let running = connection
        .prepare_cached(
            "select id, attempt from jobs indexed by jobs_held
              where worker_id = ?1 and lease_expires_at is not null order by seq",
        )?
        .query_map([Col(id)], |row| {
            Ok(LeaseKey { job_id: row.col("id")?, attempt: row.get("attempt")? })
        })?
        .collect::<Result<_, _>>()?;
    connection
        .prepare_cached("select * from workers where id = ?1")?
        .query_row([Col(id)], |row| worker(row, running, now))
        .optional()?
        .ok_or(StoreError::NotFound("worker"))
}

fn worker(row: &Row<'_>, running: Vec<LeaseKey>, now: Timestamp) -> rusqlite::Result<Worker> {
    let last_heartbeat: Timestamp = row.col("last_heartbeat")?;
    let silent = now.since(last_heartbeat) > OFFLINE_AFTER;
    let draining = row.get("draining")?;
    let told: WorkerState = row.json("state")?;
    let takes_jobs = matches!(told, WorkerState::Ready | WorkerState::Working);
    let status = if silent {
        WorkerState::Offline
    } else if draining && takes_jobs {
        WorkerState::Draining
    } else {
        told
    };
    Ok(Worker {
        worker_id: row.col("id")?,
        hostname: row.get("hostname")?,
        os: row.get("os")?,
        arch: row.get("arch")?,
        cpu_count: row.get("cpu_count")?,
        memory_bytes: row.get("memory_bytes")?,
        version: row.get("version")?,
        status,
        reason: row.get::<_, Option<Json<_>>>("reason")?.map(|reason| reason.0),
        last_heartbeat,
        registered_at: row.col("registered_at")?,
        slots: row.get("slots")?,
        running,
        sandbox_level: row.col("sandbox_level")?,
        labels: row.json("labels")?,
        network: row.json("network")?,
        draining,
        sick_since: row.col_opt("sick_since")?,
    })
}

/// Lets a worker end what runs and take nothing new, or take jobs again.
pub(super) fn set_draining(
    connection: &Connection,
    id: WorkerId,
    draining: bool,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<Worker, StoreError> {
    connection
        .prepare_cached("update workers set draining = ?2 where id = ?1")?
        .execute((Col(id), draining))?;
    changes.workers.push(id);
    find(connection, id, now)
}

/// Lets a worker take jobs again that was set aside.
pub(super) fn release(
    connection: &Connection,
    id: WorkerId,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<Worker, StoreError> {
    connection
        .prepare_cached("update workers set failed_users = '[]', sick_since = null where id = ?1")?
        .execute([Col(id)])?;
    changes.workers.push(id);
    find(connection, id, now)
}

/// Notes what an attempt's end says of its worker.
pub(super) fn note_health(
    connection: &Connection,
    worker: WorkerId,
    user: i64,
    ending: AttemptEnding,
    now: Timestamp,
    rule: HealthRule,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let before: Vec<i64> = connection
        .prepare_cached("select failed_users from workers where id = ?1")?
        .query_row([Col(worker)], |row| row.json("failed_users"))?;
    let health = rule(&before, user, ending);
    if health.failed_users == before {
        return Ok(());
    }
    connection
        .prepare_cached(
            "update workers set failed_users = ?2,
                    sick_since = case when ?3 then coalesce(sick_since, ?4) else sick_since end
              where id = ?1",
        )?
        .execute((Col(worker), Json(&health.failed_users), health.sick, Col(now)))?;
    if health.sick {
        changes.workers.push(worker);
    }
    Ok(())
}

pub(super) fn mark_silent(
    connection: &Connection,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<Vec<WorkerId>, StoreError> {
    let silent: Vec<WorkerId> = connection
        .prepare_cached(
            "update workers set state = 'offline', reason = null
              where state <> 'offline' and last_heartbeat < ?1 returning id",
        )?
        .query_map([Col(now - OFFLINE_AFTER)], |row| row.col("id"))?
        .collect::<Result<_, _>>()?;
    changes.workers.extend_from_slice(&silent);
    Ok(silent)
}
