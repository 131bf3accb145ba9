//! The store on SQLite: one thread writes, a few read, one file per noun holds the statements.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use lull_shared::{
    credentials::SecretHash,
    ids::{Digest, JobId, JoinCodeId, TokenId, WorkerId},
    jobs::{Job, JobFilter, JobList, LeaseKey},
    output::Stream,
    time::Timestamp,
    workers::Worker,
};

use super::{Store, StoreError, StoreRead};
use crate::model::{
    ApiToken, Appended, Changes, ClaimRules, Claimed, Created, Done, EndRules, EndedAttempt,
    Enrolment, JobEvent, JoinCodeRecord, Keeping, Machine, NewJob, Offer, OutputCursor, OutputPage,
    OutputPiece, ReadyJob, Recorded, Renewal, Report, SignOfLife, Submitter, WaitFacts,
};

mod arrays;
pub mod backup;
mod blobs;
mod claims;
mod columns;
mod connection;
mod credentials;
mod dependencies;
mod due;
mod jobs;
mod leases;
mod output;
mod readers;
mod show;
mod sweep;
mod waiting;
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

    /// Does one write and gathers what it changes.
    async fn change<T, F>(&self, work: F) -> Result<Done<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection, &mut Changes) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer
            .write(move |db| {
                let mut changes = Changes::default();
                let value = work(db, &mut changes)?;
                Ok(Done { value, changes })
            })
            .await
    }
}

#[async_trait]
impl StoreRead for SqliteStore {
    async fn ready(&self) -> Result<(), StoreError> {
        self.readers.read(|db| Ok(db.query_row("select turn from turns", [], |_| Ok(()))?)).await?;
        self.writer.ready().await
    }

    async fn job(&self, id: JobId) -> Result<Job, StoreError> {
        self.readers.read(move |db| show::detail(db, id)).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<JobList, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |db| show::list(db, &filter)).await
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

    async fn claimable(&self, limit: u32) -> Result<Vec<ReadyJob>, StoreError> {
        self.readers.read(move |db| claims::claimable(db, limit)).await
    }

    async fn wait_facts(&self, job: JobId, now: Timestamp) -> Result<WaitFacts, StoreError> {
        self.readers.read(move |db| waiting::facts(db, job, now)).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create_job(&self, job: NewJob, now: Timestamp) -> Result<Done<Created>, StoreError> {
        self.change(move |db, changes| {
            let created = jobs::create(db, &job, now, changes)?;
            if created.new {
                jobs::check_room(db, job.submitter.token_id, job.waiting_max)?;
            }
            Ok(created)
        })
        .await
    }

    async fn resubmit(
        &self,
        from: JobId,
        id: JobId,
        submitter: Submitter,
        waiting_max: u64,
        now: Timestamp,
    ) -> Result<Done<Job>, StoreError> {
        self.change(move |db, changes| {
            let job = jobs::resubmit(db, from, id, &submitter, now, changes)?;
            jobs::check_room(db, submitter.token_id, waiting_max).map(|()| job)
        })
        .await
    }

    async fn claim(
        &self,
        offer: Offer,
        rules: ClaimRules,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Done<Claimed>, StoreError> {
        self.change(move |db, changes| claims::claim(db, offer, rules, now, lease, changes)).await
    }

    async fn unclaim(
        &self,
        worker: WorkerId,
        keys: Vec<LeaseKey>,
        now: Timestamp,
        rules: EndRules,
    ) -> Result<Done<Vec<EndedAttempt>>, StoreError> {
        self.change(move |db, changes| leases::unclaim(db, worker, &keys, now, rules, changes))
            .await
    }

    async fn heartbeat(
        &self,
        life: SignOfLife,
        now: Timestamp,
        lease: Duration,
        rules: EndRules,
    ) -> Result<Done<Renewal>, StoreError> {
        self.change(move |db, changes| leases::heartbeat(db, &life, now, lease, rules, changes))
            .await
    }

    async fn register(
        &self,
        worker: WorkerId,
        machine: Machine,
        enrolment: Enrolment,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Done<()>, StoreError> {
        self.change(move |db, changes| {
            workers::register(db, worker, &machine, &enrolment, now, grace, changes)
        })
        .await
    }

    async fn set_draining(
        &self,
        worker: WorkerId,
        draining: bool,
        now: Timestamp,
    ) -> Result<Done<Worker>, StoreError> {
        self.change(move |db, changes| workers::set_draining(db, worker, draining, now, changes))
            .await
    }

    async fn release_worker(
        &self,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Done<Worker>, StoreError> {
        self.change(move |db, changes| workers::release(db, worker, now, changes)).await
    }

    async fn append_output(
        &self,
        worker: WorkerId,
        key: LeaseKey,
        piece: OutputPiece,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Done<Appended>, StoreError> {
        self.change(move |db, changes| {
            leases::append_output(db, worker, key, &piece, now, lease, changes)
        })
        .await
    }

    async fn finish(
        &self,
        report: Report,
        now: Timestamp,
        rules: EndRules,
    ) -> Result<Done<Recorded>, StoreError> {
        self.change(move |db, changes| leases::finish(db, &report, now, rules, changes)).await
    }

    async fn cancel(&self, job: JobId, now: Timestamp) -> Result<Done<Job>, StoreError> {
        self.change(move |db, changes| jobs::cancel(db, job, now, changes)).await
    }

    async fn set_held(&self, job: JobId, held: bool) -> Result<Done<Job>, StoreError> {
        self.change(move |db, changes| jobs::set_held(db, job, held, changes)).await
    }

    async fn expire(
        &self,
        now: Timestamp,
        limit: u32,
        rules: EndRules,
    ) -> Result<Done<Vec<EndedAttempt>>, StoreError> {
        self.change(move |db, changes| leases::expire(db, now, limit, rules, changes)).await
    }

    async fn set_right(
        &self,
        now: Timestamp,
        lease: Duration,
        pause: Duration,
    ) -> Result<(), StoreError> {
        self.writer.write(move |db| due::set_right(db, now, lease, pause)).await
    }

    async fn tick(&self, now: Timestamp, limit: u32) -> Result<Done<bool>, StoreError> {
        self.change(move |db, changes| due::tick(db, now, limit, changes)).await
    }

    async fn sweep_jobs(
        &self,
        keeping: Keeping,
        now: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.writer.write(move |db| sweep::jobs(db, keeping, now, limit)).await
    }

    async fn forget_blobs(&self, before: Timestamp, limit: u32) -> Result<Vec<Digest>, StoreError> {
        self.writer.write(move |db| blobs::forget(db, before, limit)).await
    }

    async fn touch_blob(&self, digest: Digest, now: Timestamp) -> Result<(), StoreError> {
        self.writer.write(move |db| blobs::touch(db, digest, now)).await
    }

    async fn mark_silent(&self, now: Timestamp) -> Result<Done<Vec<WorkerId>>, StoreError> {
        self.change(move |db, changes| workers::mark_silent(db, now, changes)).await
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
