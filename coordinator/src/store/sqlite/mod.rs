//! The store on SQLite: one thread writes, a few read, one file per noun holds the statements.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use lull_shared::{
    credentials::SecretHash,
    ids::{Digest, JobId, JoinCodeId, TokenId, WorkerId},
    jobs::{Job, JobFilter, JobList, LeaseKey},
    output::Stream,
    time::Timestamp,
    workers::{SandboxLevel, Worker},
};

use super::{Store, StoreError, StoreRead};
use crate::model::{
    ApiToken, Appended, Claimed, Created, EndedAttempt, Enrolment, JobEvent, JoinCodeRecord,
    Machine, NewJob, Offer, OutputCursor, OutputPage, OutputPiece, PlacementRule, Recorded,
    Renewal, Report, RetryRule, SignOfLife,
};

mod blobs;
mod claims;
mod columns;
mod connection;
mod credentials;
mod jobs;
mod leases;
mod output;
mod readers;
mod workers;
mod writer;

/// A database file that is open.
pub struct SqliteStore {
    writer: writer::Writer,
    readers: readers::Readers,
}

impl SqliteStore {
    /// Opens the file, making or upgrading it as needed.
    ///
    /// # Errors
    /// See [`super::open`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let writer = writer::Writer::start(connection::open_for_writing(path)?)?;
        Ok(Self { writer, readers: readers::Readers::start(path)? })
    }
}

#[async_trait]
impl StoreRead for SqliteStore {
    async fn ready(&self) -> Result<(), StoreError> {
        self.readers.read(|db| Ok(db.query_row("select 1", [], |_| Ok(()))?)).await
    }

    async fn job(&self, id: JobId) -> Result<Job, StoreError> {
        self.readers.read(move |db| jobs::detail(db, id)).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<JobList, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |db| jobs::list(db, &filter)).await
    }

    async fn workers(&self, now: Timestamp) -> Result<Vec<Worker>, StoreError> {
        self.readers.read(move |db| workers::list(db, now)).await
    }

    async fn worker_secret(&self, id: WorkerId) -> Result<Option<SecretHash>, StoreError> {
        self.readers.read(move |db| credentials::worker_secret(db, id)).await
    }

    async fn token(&self, id: TokenId) -> Result<Option<ApiToken>, StoreError> {
        self.readers.read(move |db| credentials::token(db, id)).await
    }

    async fn join_code(&self, id: JoinCodeId) -> Result<Option<JoinCodeRecord>, StoreError> {
        self.readers.read(move |db| credentials::join_code(db, id)).await
    }

    async fn blob_size(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        self.readers.read(move |db| blobs::size(db, digest)).await
    }

    async fn may_read_blob(&self, worker: WorkerId, digest: Digest) -> Result<bool, StoreError> {
        self.readers.read(move |db| blobs::may_read(db, worker, digest)).await
    }

    async fn events(
        &self,
        job: JobId,
        after: OutputCursor,
        bytes_max: usize,
    ) -> Result<Vec<(OutputCursor, JobEvent)>, StoreError> {
        self.readers.read(move |db| output::events(db, job, after, bytes_max)).await
    }

    async fn output(
        &self,
        job: JobId,
        attempt: Option<u32>,
        stream: Stream,
        from: u64,
    ) -> Result<OutputPage, StoreError> {
        self.readers.read(move |db| output::page(db, job, attempt, stream, from)).await
    }

    async fn claimable(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<(SandboxLevel, u32)>, StoreError> {
        self.readers.read(move |db| claims::claimable(db, now, limit)).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create_job(&self, job: NewJob, now: Timestamp) -> Result<Created, StoreError> {
        self.writer.write(move |db| jobs::create(db, &job, now)).await
    }

    async fn claim(
        &self,
        offer: Offer,
        rule: PlacementRule,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Claimed, StoreError> {
        self.writer.write(move |db| claims::claim(db, offer, rule, now, lease)).await
    }

    async fn unclaim(
        &self,
        worker: WorkerId,
        keys: Vec<LeaseKey>,
        now: Timestamp,
        rule: RetryRule,
    ) -> Result<Vec<EndedAttempt>, StoreError> {
        self.writer.write(move |db| leases::unclaim(db, worker, &keys, now, rule)).await
    }

    async fn heartbeat(
        &self,
        life: SignOfLife,
        now: Timestamp,
        lease: Duration,
        rule: RetryRule,
    ) -> Result<Renewal, StoreError> {
        self.writer.write(move |db| leases::heartbeat(db, &life, now, lease, rule)).await
    }

    async fn register(
        &self,
        worker: WorkerId,
        machine: Machine,
        enrolment: Enrolment,
        now: Timestamp,
        grace: Duration,
    ) -> Result<(), StoreError> {
        self.writer
            .write(move |db| workers::register(db, worker, &machine, &enrolment, now, grace))
            .await
    }

    async fn append_output(
        &self,
        worker: WorkerId,
        key: LeaseKey,
        piece: OutputPiece,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Appended, StoreError> {
        self.writer
            .write(move |db| leases::append_output(db, worker, key, &piece, now, lease))
            .await
    }

    async fn finish(
        &self,
        report: Report,
        now: Timestamp,
        rule: RetryRule,
    ) -> Result<Recorded, StoreError> {
        self.writer.write(move |db| leases::finish(db, &report, now, rule)).await
    }

    async fn cancel(&self, job: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.writer.write(move |db| jobs::cancel(db, job, now)).await
    }

    async fn expire(
        &self,
        now: Timestamp,
        limit: u32,
        rule: RetryRule,
    ) -> Result<Vec<EndedAttempt>, StoreError> {
        self.writer.write(move |db| leases::expire(db, now, limit, rule)).await
    }

    async fn mark_silent(&self, now: Timestamp) -> Result<Vec<WorkerId>, StoreError> {
        self.writer.write(move |db| workers::mark_silent(db, now)).await
    }

    async fn record_blob(
        &self,
        digest: Digest,
        size_bytes: u64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer.write(move |db| blobs::record(db, digest, size_bytes, now)).await
    }

    async fn add_token(&self, token: ApiToken) -> Result<(), StoreError> {
        self.writer.write(move |db| credentials::add_token(db, &token)).await
    }

    async fn touch_token(&self, id: TokenId, now: Timestamp) -> Result<(), StoreError> {
        self.writer.write(move |db| credentials::touch_token(db, id, now)).await
    }

    async fn add_join_code(&self, code: JoinCodeRecord) -> Result<(), StoreError> {
        self.writer.write(move |db| credentials::add_join_code(db, &code)).await
    }
}

#[cfg(test)]
mod tests;
