//! Which blobs are durable, and which of them a worker may read.

use lull_shared::{
    ids::{Digest, WorkerId},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::columns::Col;
use crate::store::StoreError;

pub(super) fn record(
    connection: &Connection,
    digest: Digest,
    size_bytes: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into blobs (digest, size_bytes, created_at) values (?1, ?2, ?3)
             on conflict (digest) do nothing",
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

/// Fails for a blob that is not recorded.
pub(super) fn require(connection: &Connection, digest: Digest) -> Result<(), StoreError> {
    size(connection, digest)?.map(drop).ok_or(StoreError::FileMissing(digest))
}

pub(super) fn may_read(
    connection: &Connection,
    worker: WorkerId,
    digest: Digest,
) -> Result<bool, StoreError> {
    let holds = connection
        .prepare_cached(
            "select exists (select 1 from jobs indexed by jobs_held
              where worker_id = ?1 and state = 'running' and file_digest = ?2)",
        )?
        .query_row((Col(worker), Col(digest)), |row| row.get(0))?;
    Ok(holds)
}
