//! What is known of a job that waits, read at one moment.

use lull_shared::{
    ids::{JobId, WorkerId},
    jobs::Requirements,
    time::Timestamp,
};
use rusqlite::{Connection, named_params};

use super::{claims, columns::RowExt as _, jobs, show, workers};
use crate::{model::WaitFacts, store::StoreError};

/// How many earlier runs of a job are looked at to tell how long one takes.
const EARLIER_RUNS: u32 = 20;
/// How many running jobs are looked at to tell when a PC comes free.
const RUNNING_MAX: u32 = 200;

pub(super) fn facts(
    connection: &Connection,
    id: JobId,
    now: Timestamp,
) -> Result<WaitFacts, StoreError> {
    let seq = jobs::seq_of(connection, id)?;
    let job = show::detail(connection, id)?;
    let (ready, class, priority, user): (bool, i64, i64, i64) = connection
        .prepare_cached("select ready, class_id, priority, user_id from jobs where seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let count = |condition: &str| -> Result<u64, StoreError> {
        let count = connection
            .prepare_cached(&format!(
                "select coalesce(sum(coalesce((select count - next from arrays where job = seq), 1)), 0)
                   from jobs indexed by jobs_ready
                  where ready = 1 and class_id = :class and {condition}
                    and coalesce(:priority, :user, :seq) is not null"
            ))?
            .query_row(
                named_params! { ":class": class, ":priority": priority, ":user": user, ":seq": seq },
                |row| row.get(0),
            )?;
        Ok(count)
    };
    let own_ahead =
        count("user_id = :user and (priority > :priority or priority = :priority and seq < :seq)")?;
    let higher_priority = count("user_id <> :user and priority > :priority")?;
    let requirements: Requirements = job.requirements.clone();
    let turn = connection
        .prepare_cached("select served, weight from users where id = ?1")?
        .query_row([user], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let others = connection
        .prepare_cached(
            "select served, weight,
                    sum(coalesce((select count - next from arrays where job = seq), 1)) as jobs
               from jobs indexed by jobs_ready join users on users.id = jobs.user_id
              where ready = 1 and class_id = ?1 and priority = ?2 and user_id <> ?3
              group by user_id",
        )?
        .query_map((class, priority, user), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let last_turn =
        connection.prepare_cached("select turn from turns")?.query_row([], |row| row.get(0))?;
    let facts = WaitFacts {
        requirements,
        ready,
        workers: workers::list(connection, now)?,
        failed_on: claims::failed_on(connection, seq)?,
        own_ahead,
        higher_priority,
        turn,
        others,
        last_turn,
        expected_free: expected_free(connection)?,
        job,
    };
    Ok(facts)
}

/// When running jobs are expected to end, going by how long jobs of the same user with the same name took.
fn expected_free(connection: &Connection) -> Result<Vec<(WorkerId, Timestamp)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select worker_id, started_at,
                (select avg(took) from
                    (select earlier.completed_at - earlier.started_at as took
                       from specs as same join jobs as earlier on earlier.spec_id = same.id
                      where same.name = specs.name and earlier.user_id = jobs.user_id
                        and earlier.state = 'completed' and earlier.is_array = 0
                      order by same.id desc limit ?1)) as usual
           from jobs indexed by jobs_leased join specs on specs.id = jobs.spec_id
          where lease_expires_at is not null limit ?2",
    )?;
    let mut rows = statement.query((EARLIER_RUNS, RUNNING_MAX))?;
    let mut expected = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(usual) = row.get::<_, Option<f64>>("usual")? else { continue };
        let started: Timestamp = row.col("started_at")?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds of a week"
        )]
        let usual = std::time::Duration::from_millis(usual.max(0.0) as u64);
        expected.push((row.col("worker_id")?, started + usual));
    }
    Ok(expected)
}
