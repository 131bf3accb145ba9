//! Cases about arrays.

use lull_shared::{
    ids::JobId,
    jobs::{ArrayCounts, AttemptEnding, JobFilter, JobState},
    workers::SandboxLevel,
};

use super::{
    Shared, a_job, a_job_with, a_user, a_worker, at, claim, claim_one, finish, run_one, state_of,
    submit, tick,
};
use crate::model::NewJob;
use AttemptEnding::{Cancelled, CommandFailed, Succeeded};

fn an_array(count: u32) -> NewJob {
    a_job_with(|request| request.count = Some(count))
}

async fn counts(store: &Shared, array: JobId) -> ArrayCounts {
    store.job(array).await.unwrap().array.expect("it is an array")
}

pub(crate) async fn an_array_hands_out_its_jobs_one_by_one(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, an_array(5)).await;
    assert_eq!(
        counts(store, array).await,
        ArrayCounts { count: 5, pending: 5, ..ArrayCounts::default() }
    );

    let first = claim(store, worker, 3, at(1)).await;
    let rest = claim(store, worker, 9, at(2)).await;

    assert_eq!((first.len(), rest.len()), (3, 2));
    let mut ids: Vec<JobId> = first.iter().chain(&rest).map(|job| job.job_id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5);
    assert!(!ids.contains(&array));
    let member = store.job(ids[3]).await.unwrap();
    assert_eq!((member.array_id, member.index), (Some(array), Some(3)));
    assert_eq!(
        counts(store, array).await,
        ArrayCounts { count: 5, running: 5, ..ArrayCounts::default() }
    );
    assert_eq!(state_of(store, array).await, JobState::Running);
}

pub(crate) async fn a_job_of_an_array_finds_its_number_and_item(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let items: Vec<String> = (0..600).map(|number| format!("scene-{number}.blend")).collect();
    let given = items.clone();
    submit(store, a_job_with(|request| request.items = given)).await;
    for _ in 0..10 {
        for job in claim(store, worker, 64, at(1)).await {
            let index: usize = job.env["LULL_INDEX"].parse().unwrap();
            assert_eq!(job.env["LULL_ITEM"], items[index]);
            assert_eq!(job.env["LEVEL"], "9");
        }
    }
    assert_eq!(claim(store, worker, 1, at(1)).await, []);
}

pub(crate) async fn an_array_ends_with_its_last_job(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, an_array(3)).await;
    for second in 1..=3 {
        assert_ne!(state_of(store, array).await, JobState::Completed);
        run_one(store, worker, Succeeded, at(second)).await;
    }
    let ended = store.job(array).await.unwrap();
    assert_eq!((ended.status, ended.completed_at), (JobState::Completed, Some(at(3))));
    assert_eq!(counts(store, array).await.completed, 3);
}

pub(crate) async fn a_failed_job_fails_its_array(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, an_array(3)).await;
    run_one(store, worker, Succeeded, at(1)).await;
    run_one(store, worker, CommandFailed, at(2)).await;
    assert_eq!(state_of(store, array).await, JobState::Running, "the others go on");
    run_one(store, worker, Succeeded, at(3)).await;
    let ended = store.job(array).await.unwrap();
    assert_eq!(ended.status, JobState::Failed);
    assert_eq!(ended.error_message.as_deref(), Some("1 of its jobs failed"));
}

pub(crate) async fn a_cancelled_array_hands_out_nothing_more(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, an_array(100)).await;
    run_one(store, worker, Succeeded, at(1)).await;
    let running = claim_one(store, worker, at(2)).await;

    store.cancel(array, at(3)).await.unwrap();

    assert_eq!(claim(store, worker, 9, at(4)).await, []);
    assert_eq!(state_of(store, array).await, JobState::Running, "one of its jobs still runs");
    assert!(store.job(running.job_id).await.unwrap().cancel_requested);
    finish(store, worker, running, Cancelled, at(5)).await.unwrap();
    assert_eq!(state_of(store, array).await, JobState::Cancelled);
    let counted = ArrayCounts { count: 100, completed: 1, cancelled: 99, ..ArrayCounts::default() };
    assert_eq!(counts(store, array).await, counted);
    let all = store.jobs(&JobFilter::default()).await.unwrap().counts;
    assert_eq!((all.pending, all.running, all.completed, all.cancelled), (0, 0, 1, 99));
}

pub(crate) async fn an_array_is_held_and_released(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, an_array(3)).await;
    run_one(store, worker, Succeeded, at(1)).await;
    store.set_held(array, true).await.unwrap();
    assert_eq!(claim(store, worker, 9, at(2)).await, []);
    store.set_held(array, false).await.unwrap();
    assert_eq!(claim(store, worker, 9, at(3)).await.len(), 2);
}

pub(crate) async fn an_array_shares_turns_with_others(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    submit(store, an_array(50_000)).await;
    claim(store, worker, 10, at(1)).await;
    let single = submit(store, NewJob { submitter: a_user("ben"), ..a_job() }).await;
    let next: Vec<JobId> =
        claim(store, worker, 2, at(2)).await.into_iter().map(|job| job.job_id).collect();
    assert!(next.contains(&single), "it waits for at most one job");
}

pub(crate) async fn a_job_waits_for_a_whole_array(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, an_array(2)).await;
    let last = submit(store, a_job_with(|request| request.after = vec![array])).await;
    run_one(store, worker, Succeeded, at(1)).await;
    let second = claim_one(store, worker, at(2)).await;
    assert_eq!(claim(store, worker, 1, at(2)).await, []);
    finish(store, worker, second, Succeeded, at(3)).await.unwrap();
    assert_eq!(claim_one(store, worker, at(4)).await.job_id, last);
}

pub(crate) async fn an_array_is_listed_as_one(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(store, an_array(4)).await;
    let single = submit(store, a_job()).await;
    claim(store, worker, 9, at(1)).await;

    let listed = store.jobs(&JobFilter::default()).await.unwrap();
    let ids: Vec<JobId> = listed.jobs.iter().map(|job| job.job_id).collect();
    assert_eq!(ids, [single, array]);
    assert_eq!(listed.counts.running, 5);

    let of_array = JobFilter { array_id: Some(array), limit: Some(3), ..JobFilter::default() };
    let page = store.jobs(&of_array).await.unwrap();
    let next = store.jobs(&JobFilter { cursor: page.next, ..of_array }).await.unwrap();
    let numbers: Vec<_> = page.jobs.iter().chain(&next.jobs).filter_map(|job| job.index).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
}

pub(crate) async fn a_huge_array_is_accepted_and_cancelled_at_once(store: &Shared) {
    let array = submit(store, an_array(100_000)).await;
    let all = store.jobs(&JobFilter::default()).await.unwrap();
    assert_eq!((all.jobs.len(), all.counts.pending), (1, 100_000));

    store.cancel(array, at(1)).await.unwrap();

    assert_eq!(state_of(store, array).await, JobState::Cancelled);
    let all = store.jobs(&JobFilter::default()).await.unwrap();
    assert_eq!((all.counts.pending, all.counts.cancelled), (0, 100_000));
}

pub(crate) async fn a_job_of_an_array_is_tried_again_and_counted_once(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let array = submit(
        store,
        a_job_with(|request| {
            request.count = Some(1);
            request.retries = 1;
        }),
    )
    .await;
    let first = run_one(store, worker, CommandFailed, at(1)).await;
    let waits = ArrayCounts { count: 1, pending: 1, ..ArrayCounts::default() };
    assert_eq!(counts(store, array).await, waits);
    tick(store, at(100)).await;
    assert_eq!(run_one(store, worker, Succeeded, at(100)).await, first);
    assert_eq!(state_of(store, array).await, JobState::Completed);
}

pub(crate) async fn an_array_is_submitted_again(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let items: Vec<String> = (0..300).map(|number| format!("item-{number}")).collect();
    let array = submit(store, a_job_with(|request| request.items = items)).await;
    let mut last = None;
    for _ in 0..300 {
        last = Some(run_one(store, worker, CommandFailed, at(1)).await);
        store.release_worker(worker, at(1)).await.unwrap();
    }
    let (whole, one) = (JobId::generate(), JobId::generate());

    store.resubmit(array, whole, a_user("ann"), u64::MAX, at(2)).await.unwrap();
    assert_eq!(counts(store, whole).await.pending, 300);
    assert_eq!(claim(store, worker, 1, at(3)).await[0].env["LULL_ITEM"], "item-0");
    store.cancel(whole, at(3)).await.unwrap();

    // One of its jobs alone keeps its number and its item.
    store.resubmit(last.unwrap(), one, a_user("ann"), u64::MAX, at(4)).await.unwrap();
    let claimed = claim(store, worker, 1, at(5)).await.remove(0);
    assert_eq!(claimed.job_id, one);
    assert_eq!(claimed.env["LULL_INDEX"], "299");
    assert_eq!(claimed.env["LULL_ITEM"], "item-299");
}

pub(crate) async fn a_late_array_fails_what_was_not_begun(store: &Shared) {
    let array = submit(
        store,
        a_job_with(|request| {
            request.count = Some(10);
            request.max_queue_secs = Some(5);
        }),
    )
    .await;
    tick(store, at(5)).await;
    assert_eq!(state_of(store, array).await, JobState::Failed);
    let all = store.jobs(&JobFilter::default()).await.unwrap().counts;
    assert_eq!((all.pending, all.failed), (0, 10));
}
