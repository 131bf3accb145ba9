//! Cases about what a submission can ask for: retries, waiting at most so long, holding, waiting for others.

use std::time::Duration;

use lull_shared::{
    ids::JobId,
    jobs::{AttemptEnding, JobFilter, JobState, OnOwnerReturn, OnWorkerLost},
    workers::{SandboxLevel, WorkerState},
};

use super::{
    LEASE, Shared, a_job, a_job_with, a_user, a_worker, alive, at, claim, claim_one, expire,
    finish, isolated, run_one, state_of, submit, tick, two_workers,
};
use crate::{scheduler::END_RULES, store::StoreError};
use AttemptEnding::{CommandFailed, Succeeded, TimedOut};
use JobState::{Cancelled, Completed, Failed, Pending, Running};

pub(crate) async fn a_failed_command_is_tried_again_as_often_as_asked_for(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job_with(|request| request.retries = 2)).await;
    for (attempt, ending) in [(1, CommandFailed), (2, TimedOut), (3, CommandFailed)] {
        let now = at(i64::from(attempt) * 1000);
        tick(store, now).await;
        let key = claim_one(store, worker, now).await;
        assert_eq!(key.attempt, attempt);
        let recorded = finish(store, worker, key, ending, now).await.unwrap();
        assert_eq!(recorded.state, if attempt == 3 { Failed } else { Pending });
        assert_eq!(claim(store, worker, 1, now).await, [], "the pause is not over");
    }
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.attempts.len()), (Failed, 3));
}

pub(crate) async fn a_lost_worker_spends_no_retry(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job_with(|request| request.retries = 1)).await;
    for lost in 0..3 {
        claim_one(store, worker, at(lost * 100)).await;
        expire(store, at(lost * 100 + 60)).await;
    }
    run_one(store, worker, CommandFailed, at(1000)).await;
    assert_eq!(state_of(store, id).await, Pending);
    run_one(store, worker, Succeeded, at(2000)).await;
    assert_eq!(state_of(store, id).await, Completed);
}

pub(crate) async fn a_job_that_waited_too_long_fails(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job_with(|request| request.max_queue_secs = Some(60))).await;
    tick(store, at(59)).await;
    assert_eq!(state_of(store, id).await, Pending);

    tick(store, at(60)).await;

    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.completed_at), (Failed, Some(at(60))));
    assert!(job.error_message.unwrap().contains("no PC took it"));
    assert_eq!(claim(store, worker, 1, at(61)).await, []);
}

pub(crate) async fn a_job_that_began_in_time_is_not_failed_for_waiting_later(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job_with(|request| request.max_queue_secs = Some(60))).await;
    claim_one(store, worker, at(10)).await;
    expire(store, at(70)).await;

    tick(store, at(1000)).await;

    assert_eq!(state_of(store, id).await, Pending);
}

pub(crate) async fn a_held_job_waits_until_it_is_released(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let born_held = submit(store, a_job_with(|request| request.hold = true)).await;
    let held_later = submit(store, a_job()).await;
    let held = store.set_held(held_later, true).await.unwrap().value;
    assert!(held.held && held.status == Pending);
    assert_eq!(claim(store, worker, 9, at(1)).await, []);

    for id in [born_held, held_later] {
        let released = store.set_held(id, false).await.unwrap();
        assert!(!released.value.held);
        assert_eq!(released.changes.ready.len(), 1, "a worker is to be woken");
        assert_eq!(claim_one(store, worker, at(2)).await.job_id, id);
    }
}

pub(crate) async fn a_running_job_cannot_be_held(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(1)).await;
    let refused = store.set_held(id, true).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    finish(store, worker, key, Succeeded, at(2)).await.unwrap();
    let refused = store.set_held(id, false).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
}

pub(crate) async fn a_job_runs_after_those_it_waits_for(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let (first, second) = (submit(store, a_job()).await, submit(store, a_job()).await);
    // Named twice, it is waited for once.
    let last = submit(store, after(&[first, second, first])).await;
    let waiting = store.job(last).await.unwrap();
    assert_eq!((waiting.blocked_by, waiting.after), (2, vec![first, second]));

    run_one(store, worker, Succeeded, at(1)).await;
    let key = claim_one(store, worker, at(2)).await;
    assert_eq!(key.job_id, second);
    assert_eq!(claim(store, worker, 1, at(2)).await, []);
    finish(store, worker, key, Succeeded, at(3)).await.unwrap();

    assert_eq!(claim_one(store, worker, at(4)).await.job_id, last);
}

pub(crate) async fn a_job_fails_when_one_it_waits_for_does(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let (first, second) = (submit(store, a_job()).await, submit(store, a_job()).await);
    let last = submit(store, after(&[first, second])).await;

    run_one(store, worker, CommandFailed, at(1)).await;

    let job = store.job(last).await.unwrap();
    assert_eq!(job.status, Failed);
    let why = job.error_message.unwrap();
    assert!(why.contains(&first.to_string()) && why.contains("failed"), "{why}");
    run_one(store, worker, Succeeded, at(2)).await;
    assert_eq!(state_of(store, last).await, Failed, "what ends later changes nothing");
}

pub(crate) async fn a_chain_of_waiting_jobs_fails_link_by_link(store: &Shared) {
    let first = submit(store, a_job()).await;
    let mut chain = vec![first];
    for _ in 0..20 {
        chain.push(submit(store, after(&chain[chain.len() - 1..])).await);
    }

    store.cancel(first, at(1)).await.unwrap();

    for id in &chain[1..] {
        assert_eq!(state_of(store, *id).await, Failed);
    }
}

pub(crate) async fn a_job_after_ended_ones_starts_or_fails_at_once(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let (good, bad) = (submit(store, a_job()).await, submit(store, a_job()).await);
    run_one(store, worker, Succeeded, at(1)).await;
    run_one(store, worker, CommandFailed, at(1)).await;

    let starts = submit(store, after(&[good])).await;
    let fails = submit(store, after(&[good, bad])).await;

    assert_eq!(state_of(store, fails).await, Failed);
    assert_eq!(claim_one(store, worker, at(2)).await.job_id, starts);
}

pub(crate) async fn a_job_after_an_unknown_one_is_refused(store: &Shared) {
    let unknown = JobId::generate();
    let refused = store.create_job(after(&[unknown]), at(0)).await;
    let Err(StoreError::Invalid(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains(&unknown.to_string()), "{why}");
}

pub(crate) async fn many_waiting_jobs_are_told_in_steps(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let first = submit(store, a_job()).await;
    let mut waiting = Vec::new();
    for _ in 0..150 {
        waiting.push(submit(store, after(&[first])).await);
    }
    run_one(store, worker, Succeeded, at(1)).await;
    let told_at_once = store.claimable(1000).await.unwrap()[0].jobs;
    assert!(told_at_once < 150, "no transaction grows with what waits");

    tick(store, at(2)).await;

    assert_eq!(store.claimable(1000).await.unwrap()[0].jobs, 150);
}

pub(crate) async fn an_ended_job_is_submitted_again(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let old = submit(store, a_job_with(|request| request.priority = 7)).await;
    run_one(store, worker, CommandFailed, at(1)).await;

    let id = JobId::generate();
    let again = store.resubmit(old, id, a_user("ben"), u64::MAX, at(2)).await.unwrap();

    assert_eq!(again.changes.ready.len(), 1);
    let (job, first) = (again.value, store.job(old).await.unwrap());
    assert_eq!((job.job_id, job.status, job.attempt), (id, Pending, 0));
    assert_eq!(job.resubmitted_from, Some(old));
    assert_eq!(job.submitted_by, "ben");
    assert_eq!((&job.command, job.priority), (&first.command, 7));
    assert_eq!(claim(store, worker, 1, at(3)).await[0].env["LEVEL"], "9");
}

pub(crate) async fn a_job_that_has_not_ended_is_not_submitted_again(store: &Shared) {
    let old = submit(store, a_job()).await;
    let refused = store.resubmit(old, JobId::generate(), a_user("ann"), u64::MAX, at(2)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
}

pub(crate) async fn every_change_is_told(store: &Shared) {
    let (one, _) = two_workers(store).await;
    let created = store.create_job(a_job(), at(0)).await.unwrap();
    let id = created.value.job.job_id;
    let states = |changes: &crate::model::Changes| {
        changes.jobs.iter().map(|change| (change.job, change.state)).collect::<Vec<_>>()
    };
    assert_eq!(states(&created.changes), [(id, Pending)]);
    assert_eq!(created.changes.ready.len(), 1);

    let offer = crate::model::Offer { worker: one, max: 1 };
    let rules = crate::scheduler::CLAIM_RULES;
    let claimed = store.claim(offer, rules, at(1), super::LEASE).await.unwrap();
    assert_eq!(states(&claimed.changes), [(id, Running)]);

    let expired = store.expire(at(100), 9, END_RULES).await.unwrap();
    assert_eq!(states(&expired.changes), [(id, Pending)]);
    assert_eq!(expired.changes.ready.len(), 1);

    let cancelled = store.cancel(id, at(101)).await.unwrap();
    assert_eq!(states(&cancelled.changes), [(id, Cancelled)]);
    assert_eq!(cancelled.changes.ready, []);
}

pub(crate) async fn the_reply_to_a_submission_is_what_the_store_keeps(store: &Shared) {
    let first = submit(store, a_job()).await;
    let with_items = a_job_with(|request| request.items = vec!["a".to_owned(), "b".to_owned()]);
    let held = a_job_with(|request| {
        (request.hold, request.priority, request.retries) = (true, -3, 2);
        (request.timeout_secs, request.max_queue_secs) = (Some(9), Some(60));
        (request.on_worker_lost, request.on_owner_return) =
            (OnWorkerLost::Fail, OnOwnerReturn::Move);
        (request.argv, request.filename) = (vec!["true".to_owned()], Some("a.zip".to_owned()));
    });
    for (job, ready) in [
        (a_job(), Some(1)),
        (isolated(SandboxLevel::L3), Some(1)),
        (a_job_with(|request| request.count = Some(7)), Some(7)),
        (with_items, Some(2)),
        (held, None),
        (after(&[first]), None),
    ] {
        let made = store.create_job(job, at(5)).await.unwrap();
        let id = made.value.job.job_id;
        let listed = store.jobs(&JobFilter::default()).await.unwrap().jobs;
        assert_eq!(listed.into_iter().find(|job| job.job_id == id), Some(made.value.job));
        let ready_now = made.changes.ready.first().map(|ready| ready.jobs);
        assert_eq!(ready_now, ready);
    }
}

fn after(jobs: &[JobId]) -> crate::model::NewJob {
    a_job_with(|request| request.after = jobs.to_vec())
}

pub(crate) async fn s1_a_clock_that_was_set_back_keeps_nothing_waiting(store: &Shared) {
    const DAY: i64 = 24 * 60 * 60;
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let paused = submit(store, a_job_with(|request| request.retries = 1)).await;
    let key = claim_one(store, worker, at(DAY)).await;
    finish(store, worker, key, AttemptEnding::CommandFailed, at(DAY)).await.unwrap();
    let held = submit(store, a_job()).await;
    let lease = claim_one(store, worker, at(DAY)).await;

    let pause = Duration::from_secs(600);
    store.set_right(at(0), LEASE, pause).await.unwrap();

    assert_eq!(store.workers(at(31)).await.unwrap()[0].status, WorkerState::Offline);
    assert_eq!(expire(store, at(59)).await, []);
    store.heartbeat(alive(worker, &[lease]), at(59), LEASE, END_RULES).await.unwrap();
    assert_eq!(expire(store, at(118)).await, []);
    assert_eq!(expire(store, at(119)).await[0].key.job_id, held);
    tick(store, at(600)).await;
    assert!(claim(store, worker, 9, at(600)).await.iter().any(|job| job.job_id == paused));
}
