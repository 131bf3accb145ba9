//! Cases about what is kept and what is removed.

use std::time::Duration;

use lull_shared::{
    ids::{Digest, JobId},
    jobs::{AttemptEnding, JobFilter},
    workers::SandboxLevel,
};

use super::{Shared, a_job, a_job_with, a_worker, append, at, claim_one, finish, run_one, submit};
use crate::{model::Keeping, store::StoreError};
use AttemptEnding::{CommandFailed, Succeeded};

const DAY: i64 = 24 * 60 * 60;

fn a_week() -> Keeping {
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    Keeping { jobs: week, jobs_max: 1000, files: week }
}

async fn is_kept(store: &Shared, job: JobId) -> bool {
    match store.job(job).await {
        Ok(_) => true,
        Err(StoreError::NotFound(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn ended_jobs_are_kept_for_their_time(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let old = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(0)).await;
    append(store, worker, key, lull_shared::output::Stream::Stdout, 0, b"hello").await.unwrap();
    finish(store, worker, key, Succeeded, at(0)).await.unwrap();
    let new = submit(store, a_job()).await;
    run_one(store, worker, Succeeded, at(3 * DAY)).await;
    let waiting = submit(store, a_job()).await;

    assert_eq!(store.sweep_jobs(a_week(), at(6 * DAY), 100).await.unwrap(), 0);
    assert_eq!(store.sweep_jobs(a_week(), at(8 * DAY), 100).await.unwrap(), 1);

    assert!(!is_kept(store, old).await);
    assert!(is_kept(store, new).await && is_kept(store, waiting).await);
    let counts = store.jobs(&JobFilter::default()).await.unwrap().counts;
    assert_eq!((counts.completed, counts.pending), (1, 1));
}

pub(crate) async fn no_more_ended_jobs_are_kept_than_wanted(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let mut ended = Vec::new();
    for second in 0..5 {
        submit(store, a_job()).await;
        ended.push(run_one(store, worker, Succeeded, at(second)).await);
    }
    let two = Keeping { jobs_max: 2, ..a_week() };
    assert_eq!(store.sweep_jobs(two, at(10), 100).await.unwrap(), 3);
    for (number, job) in ended.iter().enumerate() {
        assert_eq!(is_kept(store, *job).await, number >= 3, "{number}");
    }
}

pub(crate) async fn an_array_goes_with_all_its_jobs_step_by_step(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, a_job_with(|request| request.count = Some(25))).await;
    for _ in 0..25 {
        run_one(store, worker, Succeeded, at(0)).await;
    }
    let mut removed = Vec::new();
    loop {
        match store.sweep_jobs(a_week(), at(8 * DAY), 10).await.unwrap() {
            0 => break,
            jobs => removed.push(jobs),
        }
    }
    assert_eq!(removed, [10, 10, 6], "25 jobs and the array itself");
    assert!(!is_kept(store, array).await);
    let counts = store.jobs(&JobFilter::default()).await.unwrap().counts;
    assert_eq!(counts, lull_shared::jobs::JobCounts::default());
}

pub(crate) async fn what_an_ended_job_shares_with_another_stays(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let old = submit(store, a_job()).await;
    run_one(store, worker, CommandFailed, at(0)).await;
    let again = JobId::generate();
    store.resubmit(old, again, super::a_user("ann"), u64::MAX, at(8 * DAY)).await.unwrap();

    store.sweep_jobs(a_week(), at(8 * DAY), 100).await.unwrap();

    assert!(!is_kept(store, old).await);
    assert_eq!(store.job(again).await.unwrap().command, "make\nmake test");
}

pub(crate) async fn blobs_are_kept_while_something_refers_to_them(store: &Shared) {
    let (input, stray) = (Digest::of(b"input"), Digest::of(b"stray"));
    for digest in [input, stray] {
        store.record_blob(digest, 5, at(0)).await.unwrap();
    }
    let job = submit(store, a_job_with(|request| request.file_digest = Some(input))).await;
    assert_eq!(store.forget_blobs(at(0), 10).await.unwrap(), [], "not used before that time");
    assert_eq!(store.forget_blobs(at(1), 10).await.unwrap(), [stray]);

    store.cancel(job, at(1)).await.unwrap();
    store.sweep_jobs(a_week(), at(8 * DAY), 10).await.unwrap();
    store.touch_blob(input, at(7 * DAY)).await.unwrap();
    assert_eq!(store.forget_blobs(at(6 * DAY), 10).await.unwrap(), [], "asked for lately");
    assert_eq!(store.forget_blobs(at(8 * DAY), 10).await.unwrap(), [input]);
    assert_eq!(store.blob_size(input).await.unwrap(), None);
}
