//! Claiming: which jobs begin their next attempt, and finding out which could.
//!
//! Of all jobs that wait, a claim looks at the first of each user in the classes that the worker meets, through the
//! index of what is ready. The statements name that index: left to itself, SQLite may choose one that walks over
//! every job which waits.

use std::{collections::BTreeSet, time::Duration};

use lull_shared::{
    ids::{Digest, JobId, WorkerId},
    jobs::{Assignment, JobState, Requirements},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::{
    arrays,
    columns::{Col, RowExt as _},
    jobs,
    output::{self, Happening},
    show,
};
use crate::{
    model::{Capabilities, Changes, ClaimRules, Claimed, JobChange, Offer, ReadyJob, Spec, Turn},
    store::{OFFLINE_AFTER, StoreError},
};

/// How many jobs of one user are passed over, because the worker failed them before, until another user is looked at.
const PASSED_OVER_MAX: usize = 32;

pub(super) fn claim(
    connection: &Connection,
    offer: Offer,
    rules: ClaimRules,
    now: Timestamp,
    lease: Duration,
    changes: &mut Changes,
) -> Result<Claimed, StoreError> {
    let worker = connection
        .prepare_cached("select * from workers where id = ?1")?
        .query_row([Col(offer.worker)], Claimer::read)
        .optional()?
        .ok_or(StoreError::NotFound("worker"))?;
    let mut claimed = Claimed { jobs: Vec::new(), capabilities: None, passed_on: Vec::new() };
    if worker.set_aside {
        return Ok(claimed);
    }
    end_backoffs(connection, now, changes)?;
    let mut line = Line::new(connection, &worker, rules, now)?;
    while let Some(first) = line.next()? {
        claimed.jobs.push(start(connection, &first, &worker, now, lease, changes)?);
        if claimed.jobs.len() >= offer.max as usize {
            break;
        }
        line.taken()?;
    }
    for seq in line.passed_over {
        claimed.passed_on.extend(jobs::if_ready(connection, seq)?);
    }
    claimed.capabilities = Some(worker.capabilities);
    Ok(claimed)
}

/// The worker that asks.
struct Claimer {
    id: WorkerId,
    hostname: String,
    capabilities: Capabilities,
    /// Drained or sick: it gets nothing.
    set_aside: bool,
}

impl Claimer {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.col("id")?,
            hostname: row.get("hostname")?,
            capabilities: capabilities(row)?,
            set_aside: row.get("draining")? || row.get::<_, Option<i64>>("sick_since")?.is_some(),
        })
    }
}

pub(super) fn capabilities(row: &Row<'_>) -> rusqlite::Result<Capabilities> {
    Ok(Capabilities {
        os: row.get("os")?,
        arch: row.get("arch")?,
        cpu_count: row.get("cpu_count")?,
        memory_bytes: row.get("memory_bytes")?,
        labels: row.json("labels")?,
        sandbox_level: row.col("sandbox_level")?,
        network: row.json("network")?,
    })
}

/// A user's first job in one class, at the priority that is looked at.
struct Candidate {
    class: i64,
    user: i64,
    turn: Turn,
    first: First,
}

/// A job that may be claimed.
#[derive(Clone, Copy)]
struct First {
    seq: i64,
    is_array: bool,
}

/// What one worker could take, best first.
struct Line<'a> {
    connection: &'a Connection,
    worker: &'a Claimer,
    rules: ClaimRules,
    now: Timestamp,
    /// The classes with ready jobs that the worker meets.
    classes: Vec<i64>,
    /// The priority that is looked at; lower ones follow.
    priority: Option<i64>,
    candidates: Vec<Candidate>,
    last_turn: u64,
    /// The candidate that was given last.
    given: usize,
    passed_over: BTreeSet<i64>,
}

impl<'a> Line<'a> {
    fn new(
        connection: &'a Connection,
        worker: &'a Claimer,
        rules: ClaimRules,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut classes = Vec::new();
        for (class, requirements) in ready_classes(connection)? {
            if (rules.meets)(&requirements, &worker.capabilities) {
                classes.push(class);
            }
        }
        let last_turn =
            connection.prepare_cached("select turn from turns")?.query_row([], |row| row.get(0))?;
        Ok(Self {
            connection,
            worker,
            rules,
            now,
            classes,
            priority: None,
            candidates: Vec::new(),
            last_turn,
            given: 0,
            passed_over: BTreeSet::new(),
        })
    }

    /// The job that comes first. It is to be started, then [`Line::taken`] be called.
    fn next(&mut self) -> Result<Option<First>, StoreError> {
        while self.candidates.is_empty() {
            if !self.look_lower()? {
                return Ok(None);
            }
        }
        let turns: Vec<Turn> = self.candidates.iter().map(|candidate| candidate.turn).collect();
        let Some(given) = (self.rules.turn)(&turns, self.last_turn) else { return Ok(None) };
        let candidate = &self.candidates[given.index];
        let (user, first) = (candidate.user, candidate.first);
        for same in self.candidates.iter_mut().filter(|candidate| candidate.user == user) {
            same.turn.served = given.served;
        }
        self.last_turn = given.turn;
        self.given = given.index;
        self.connection
            .prepare_cached("update users set served = ?2 where id = ?1")?
            .execute((user, given.served))?;
        self.connection.prepare_cached("update turns set turn = ?1")?.execute([given.turn])?;
        Ok(Some(first))
    }

    /// The job that [`Line::next`] gave was started: its user's next one takes its place.
    fn taken(&mut self) -> Result<(), StoreError> {
        let Candidate { class, user, .. } = self.candidates[self.given];
        match self.first_of(class, user)? {
            Some(first) => {
                let candidate = &mut self.candidates[self.given];
                (candidate.turn.first, candidate.first) = (first.seq, first);
            }
            None => drop(self.candidates.swap_remove(self.given)),
        }
        Ok(())
    }

    /// Goes on with the next lower priority that has jobs.
    fn look_lower(&mut self) -> Result<bool, StoreError> {
        let mut highest = None;
        let mut statement = self.connection.prepare_cached(
            "select max(priority) from jobs indexed by jobs_ready
              where ready = 1 and class_id = ?1 and priority < ?2",
        )?;
        let below = self.priority.unwrap_or(i64::MAX);
        for class in &self.classes {
            let found: Option<i64> = statement.query_row((class, below), |row| row.get(0))?;
            highest = highest.max(found);
        }
        self.priority = highest;
        if highest.is_none() {
            return Ok(false);
        }
        for class in self.classes.clone() {
            let mut after = 0;
            while let Some(user) = self.next_user(class, after)? {
                after = user;
                let Some(first) = self.first_of(class, user)? else { continue };
                let (served, weight) = self
                    .connection
                    .prepare_cached("select served, weight from users where id = ?1")?
                    .query_row([user], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let turn = Turn { served, weight, first: first.seq };
                self.candidates.push(Candidate { class, user, turn, first });
            }
        }
        Ok(true)
    }

    fn next_user(&self, class: i64, after: i64) -> Result<Option<i64>, StoreError> {
        let user = self
            .connection
            .prepare_cached(
                "select user_id from jobs indexed by jobs_ready
                  where ready = 1 and class_id = ?1 and priority = ?2 and user_id > ?3
                  order by user_id limit 1",
            )?
            .query_row((class, self.priority, after), |row| row.get(0))
            .optional()?;
        Ok(user)
    }

    /// A user's first job in a class that is not better left to others.
    fn first_of(&mut self, class: i64, user: i64) -> Result<Option<First>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "select seq, attempt, is_array from jobs indexed by jobs_ready
              where ready = 1 and class_id = ?1 and priority = ?2 and user_id = ?3
              order by seq limit ?4",
        )?;
        let mut rows = statement.query((class, self.priority, user, PASSED_OVER_MAX as i64))?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if row.get::<_, u32>(1)? == 0 || !self.is_for_others(seq, class)? {
                return Ok(Some(First { seq, is_array: row.get(2)? }));
            }
            self.passed_over.insert(seq);
        }
        Ok(None)
    }

    /// Whether the worker failed this job before and another one could take it.
    fn is_for_others(&self, seq: i64, class: i64) -> Result<bool, StoreError> {
        let failed_on = failed_on(self.connection, seq)?;
        if !failed_on.contains(&self.worker.id) {
            return Ok(false);
        }
        let requirements: Requirements = self
            .connection
            .prepare_cached("select requirements from classes where id = ?1")?
            .query_row([class], |row| row.json("requirements"))?;
        let mut statement = self.connection.prepare_cached(
            "select * from workers where state in ('ready', 'working') and last_heartbeat >= ?1",
        )?;
        let mut rows = statement.query([Col(self.now - OFFLINE_AFTER)])?;
        while let Some(row) = rows.next()? {
            let other = Claimer::read(row)?;
            if !other.set_aside
                && !failed_on.contains(&other.id)
                && (self.rules.meets)(&requirements, &other.capabilities)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The workers on which a job failed.
pub(super) fn failed_on(connection: &Connection, seq: i64) -> Result<Vec<WorkerId>, StoreError> {
    let workers = connection
        .prepare_cached(
            "select distinct worker_id from attempts
              where job = ?1 and ending in ('commandFailed', 'timedOut', 'couldNotRun')",
        )?
        .query_map([seq], |row| row.col("worker_id"))?
        .collect::<Result<_, _>>()?;
    Ok(workers)
}

/// The classes that have ready jobs, by skipping from one to the next.
fn ready_classes(connection: &Connection) -> Result<Vec<(i64, Requirements)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select id, requirements from classes where id =
            (select class_id from jobs indexed by jobs_ready where ready = 1 and class_id > ?1
              order by class_id limit 1)",
    )?;
    let mut classes = Vec::new();
    let mut after = 0;
    while let Some(class) = statement
        .query_row([after], |row| Ok((row.get::<_, i64>("id")?, row.json("requirements")?)))
        .optional()?
    {
        after = class.0;
        classes.push(class);
    }
    Ok(classes)
}

/// Makes jobs claimable whose pause is over.
pub(super) fn end_backoffs(
    connection: &Connection,
    now: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    // Every claim comes by here, and a look costs less than an update of nothing.
    let due: bool = connection
        .prepare_cached(
            "select exists (select 1 from jobs indexed by jobs_in_backoff
              where state = 'pending' and not_before > 0 and not_before <= ?1)",
        )?
        .query_row([Col(now)], |row| row.get(0))?;
    if !due {
        return Ok(());
    }
    let over: Vec<i64> = connection
        .prepare_cached(
            "update jobs indexed by jobs_in_backoff
                set not_before = 0, ready = held = 0 and blocked_by = 0
              where state = 'pending' and not_before > 0 and not_before <= ?1 returning seq",
        )?
        .query_map([Col(now)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for seq in over {
        jobs::announce(connection, seq, changes)?;
    }
    Ok(())
}

/// Starts the next attempt of a job; of an array, the first attempt of its next job.
fn start(
    connection: &Connection,
    first: &First,
    worker: &Claimer,
    now: Timestamp,
    lease: Duration,
    changes: &mut Changes,
) -> Result<Assignment, StoreError> {
    let seq = if first.is_array {
        let started = start_next_of(connection, first.seq, worker, now, lease)?;
        jobs::note_change(connection, first.seq, changes)?;
        started
    } else {
        start_waiting(connection, first.seq, worker, now, lease)?;
        first.seq
    };
    let (mut assignment, index, array) = connection
        .prepare_cached(
            "select jobs.id, attempt, body, file_digest, requirements, users.name as submitted_by,
                    array_index, (select id from jobs as arrays where arrays.seq = jobs.array) as array_id
               from jobs join specs on specs.id = jobs.spec_id join classes on classes.id = jobs.class_id
               join users on users.id = jobs.user_id
              where seq = ?1",
        )?
        .query_row([seq], |row| assignment(row, lease))?;
    if let Some(index) = index {
        assignment.env.extend(arrays::environment(connection, seq, index)?);
    }
    connection
        .prepare_cached(
            "insert into attempts (job, number, worker_id, hostname, started_at)
             values (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((seq, assignment.attempt, Col(worker.id), &worker.hostname, Col(now)))?;
    let started = Happening::Started { hostname: &worker.hostname };
    output::add_event(connection, seq, assignment.attempt, &started)?;
    changes.jobs.push(JobChange {
        job: assignment.job_id,
        state: JobState::Running,
        attempt: assignment.attempt,
        array,
    });
    Ok(assignment)
}

fn start_waiting(
    connection: &Connection,
    seq: i64,
    worker: &Claimer,
    now: Timestamp,
    lease: Duration,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "update jobs
                set state = 'running', ready = 0, attempt = attempt + 1, worker_id = :worker,
                    started_at = :now, lease_expires_at = :expires, queue_deadline = null,
                    exit_code = null, error_message = null
              where seq = :seq and ready = 1",
        )?
        .execute(named_params! {
            ":worker": Col(worker.id),
            ":now": Col(now),
            ":expires": Col(now + lease),
            ":seq": seq,
        })?;
    Ok(())
}

/// Makes the next job of an array, running.
fn start_next_of(
    connection: &Connection,
    array: i64,
    worker: &Claimer,
    now: Timestamp,
    lease: Duration,
) -> Result<i64, StoreError> {
    let index = arrays::next_index(connection, array, now)?;
    connection
        .prepare_cached(
            "insert into jobs (id, state, ready, class_id, priority, user_id, spec_id, array, array_index,
                 retries, on_worker_lost, created_at, started_at, attempt, worker_id, lease_expires_at)
             select :id, 'running', 0, class_id, priority, user_id, spec_id, seq, :index,
                 retries, on_worker_lost, created_at, :now, 1, :worker, :expires
               from jobs where seq = :array",
        )?
        .execute(named_params! {
            ":id": Col(JobId::generate()),
            ":index": index,
            ":now": Col(now),
            ":worker": Col(worker.id),
            ":expires": Col(now + lease),
            ":array": array,
        })?;
    Ok(connection.last_insert_rowid())
}

/// What a worker is given, and of an array the number and the array.
fn assignment(
    row: &Row<'_>,
    lease: Duration,
) -> rusqlite::Result<(Assignment, Option<u32>, Option<JobId>)> {
    let digest = row.col_opt::<Digest>("file_digest")?;
    let spec: Spec = row.json("body")?;
    let asked: Requirements = row.json("requirements")?;
    let assignment = Assignment {
        job_id: row.col::<JobId>("id")?,
        attempt: row.get("attempt")?,
        lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        name: spec.name,
        command: spec.command,
        argv: spec.argv,
        shell: spec.shell,
        on_error: spec.on_error,
        timeout_secs: spec.timeout_secs,
        filename: spec.filename,
        file_url: digest.map(show::file_url),
        file_digest: digest,
        env: spec.env,
        outputs: spec.outputs,
        min_sandbox: asked.min_sandbox,
        network: asked.network,
        on_owner_return: spec.on_owner_return,
        submitted_by: row.get("submitted_by")?,
    };
    Ok((assignment, row.get("array_index")?, row.col_opt("array_id")?))
}

/// What could be claimed now: for each class one entry, with the number of its jobs up to `limit`.
pub(super) fn claimable(connection: &Connection, limit: u32) -> Result<Vec<ReadyJob>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select coalesce(sum(jobs), 0) from
            (select coalesce((select count - next from arrays where job = seq), 1) as jobs
               from jobs indexed by jobs_ready where ready = 1 and class_id = ?1 limit ?2)",
    )?;
    let mut found = Vec::new();
    for (class, requirements) in ready_classes(connection)? {
        let jobs: u32 = statement.query_row((class, limit), |row| row.get(0))?;
        found.push(ReadyJob { requirements, input: None, jobs: jobs.min(limit) });
    }
    Ok(found)
}
