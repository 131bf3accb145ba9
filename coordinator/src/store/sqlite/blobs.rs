//! Which blobs are durable, and which of them a worker may read.

use lull_shared::{
    ids::{Digest, WorkerId},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::columns::{Col, RowExt as _};
use crate::store::StoreError;

pub(super) fn record(
    connection: &Connection,
    digest: Digest,
    size_bytes: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into blobs (digest, size_bytes, used_at) values (?1, ?2, ?3)
             on conflict (digest) do update set used_at = excluded.used_at",
        )?
        .execute(params![Col(digest), size_bytes, Col(now)])?;
    Ok(())
}

pub(super) fn size(connection: &Connection, digest: Digest) -> Result<Option<u64>, StoreError> {
    let size = connection
        .prepare_cached("select size_bytes from blobs where digest = ?1")?
        .query_row([Col(digest)], |row| row.get(0))
        .optional()?;
    Ok(size)
}

/// Notes that a blob is of use now, so that it is kept from now on as long as a new one.
pub(super) fn touch(
    connection: &Connection,
    digest: Digest,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("update blobs set used_at = max(used_at, ?2) where digest = ?1")?
        .execute((Col(digest), Col(now)))?;
    Ok(())
}

/// Fails for a blob that is not recorded.
pub(super) fn require(connection: &Connection, digest: Digest) -> Result<(), StoreError> {
    size(connection, digest)?.map(drop).ok_or(StoreError::FileMissing(digest))
}

/// Forgets blobs that nothing refers to.
pub(super) fn forget(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<Digest>, StoreError> {
    let forgotten = connection
        .prepare_cached(
            "delete from blobs where digest in
                (select digest from blobs indexed by blobs_by_use
                  where used_at < ?1
                    and not exists (select 1 from specs where file_digest = blobs.digest)
                    and not exists (select 1 from artifacts where artifacts.digest = blobs.digest)
                  order by used_at limit ?2)
             returning digest",
        )?
        .query_map((Col(before), limit), |row| row.col("digest"))?
        .collect::<Result<_, _>>()?;
    Ok(forgotten)
}

pub(super) fn may_read(
    connection: &Connection,
    worker: WorkerId,
    digest: Digest,
) -> Result<bool, StoreError> {
    let holds = connection
        .prepare_cached(
            "select exists (select 1 from jobs indexed by jobs_held join specs on specs.id = jobs.spec_id
              where worker_id = ?1 and lease_expires_at is not null and state = 'running'
                and file_digest = ?2)",
        )?
        .query_row((Col(worker), Col(digest)), |row| row.get(0))?;
    Ok(holds)
}
