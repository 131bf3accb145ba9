//! Cases about a job's life: claimed, renewed, given up, ended, once.

use lull_shared::{
    files::Artifact,
    ids::{Digest, JobId, TokenId, WorkerId},
    jobs::{AttemptEnding, JobState, OnWorkerLost},
    output::Stream,
    workers::SandboxLevel,
};

use super::{
    LEASE, Shared, a_job, a_job_with, a_worker, alive, append, at, claim, claim_one, expire,
    finish, isolated, report, submit, two_workers, with_key,
};
use crate::{
    model::{NextStep, Offer},
    scheduler::{CLAIM_RULES, END_RULES, retry},
    store::StoreError,
};
use AttemptEnding::{CommandFailed, CouldNotRun, GivenBack, Succeeded, WorkerLost};

pub(crate) async fn a_job_is_claimed_once(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let jobs = 50;
    for _ in 0..jobs {
        submit(store, a_job()).await;
    }
    let mut claims = tokio::task::JoinSet::new();
    for number in 0..jobs * 2 {
        let store = store.clone();
        let worker = if number % 2 == 0 { one } else { two };
        claims.spawn(async move { claim(&store, worker, 1, at(1)).await });
    }
    let mut claimed: Vec<JobId> =
        claims.join_all().await.into_iter().flatten().map(|job| job.job_id).collect();
    claimed.sort();
    claimed.dedup();
    assert_eq!(claimed.len(), jobs);
    assert_eq!(claim(store, one, 1, at(1)).await, []);
}

pub(crate) async fn jobs_are_claimed_in_the_order_they_came(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let mut submitted = Vec::new();
    for min_sandbox in [SandboxLevel::L2, SandboxLevel::L0, SandboxLevel::L3, SandboxLevel::L2] {
        submitted.push(submit(store, isolated(min_sandbox)).await);
    }
    let mut claimed = Vec::new();
    for _ in 0..submitted.len() {
        claimed.push(claim_one(store, worker, at(1)).await.job_id);
    }
    assert_eq!(claimed, submitted);
}

pub(crate) async fn a_worker_gets_no_job_that_asks_for_more_isolation(store: &Shared) {
    let weak = a_worker(store, "weak", SandboxLevel::L1).await;
    submit(store, a_job()).await;
    let modest = submit(store, isolated(SandboxLevel::L1)).await;

    assert_eq!(claim_one(store, weak, at(1)).await.job_id, modest);
    assert_eq!(claim(store, weak, 9, at(1)).await, []);
}

pub(crate) async fn a_claim_takes_as_many_as_asked_for(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    for _ in 0..3 {
        submit(store, a_job()).await;
    }
    assert_eq!(claim(store, worker, 2, at(1)).await.len(), 2);
    assert_eq!(claim(store, worker, 2, at(1)).await.len(), 1);
}

pub(crate) async fn an_unknown_worker_claims_nothing(store: &Shared) {
    let offer = Offer { worker: WorkerId::generate(), max: 1 };
    let claimed = store.claim(offer, CLAIM_RULES, at(0), LEASE).await;
    assert!(matches!(claimed, Err(StoreError::NotFound("worker"))), "{claimed:?}");
}

pub(crate) async fn an_assignment_carries_all_it_takes_to_run(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let digest = Digest::of(b"zip");
    store.record_blob(digest, 3, at(0)).await.unwrap();
    let job = a_job_with(|request| {
        request.file_digest = Some(digest);
        request.filename = Some("in.zip".to_owned());
    });
    submit(store, job.clone()).await;

    let assignment = claim(store, worker, 1, at(1)).await.remove(0);

    assert_eq!((assignment.job_id, assignment.attempt), (job.id, 1));
    assert_eq!(assignment.lease_ms, 60_000);
    assert_eq!(assignment.command, job.request.command);
    assert_eq!(assignment.env, job.request.env);
    assert_eq!(assignment.outputs, job.request.outputs);
    assert_eq!(assignment.file_digest, Some(digest));
    assert_eq!(assignment.file_url, Some(format!("/api/files/{digest}")));
    assert_eq!(assignment.filename.as_deref(), Some("in.zip"));
    assert_eq!(assignment.submitted_by, "ann");
}

pub(crate) async fn a_job_runs_to_its_end(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let waiting = store.job(id).await.unwrap();
    assert_eq!((waiting.status, waiting.attempt), (JobState::Pending, 0));

    let key = claim_one(store, worker, at(1)).await;
    let running = store.job(id).await.unwrap();
    assert_eq!(running.status, JobState::Running);
    assert_eq!(running.worker_id, Some(worker));
    assert_eq!(running.hostname.as_deref(), Some("pc"));
    assert_eq!(running.started_at, Some(at(1)));

    let recorded = finish(store, worker, key, Succeeded, at(5)).await.unwrap();
    assert_eq!(recorded.state, JobState::Completed);
    let done = store.job(id).await.unwrap();
    assert_eq!(done.status, JobState::Completed);
    assert_eq!(done.exit_code, Some(0));
    assert_eq!(done.completed_at, Some(at(5)));
    assert_eq!(done.attempts.len(), 1);
    assert_eq!(done.attempts[0].ending, Some(Succeeded));
    assert_eq!(done.env_names, ["LEVEL"]);
}

pub(crate) async fn a_failed_command_fails_its_job(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(1)).await;

    let recorded = finish(store, worker, key, CommandFailed, at(5)).await.unwrap();

    assert_eq!(recorded.state, JobState::Failed);
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.exit_code), (JobState::Failed, Some(3)));
    assert_eq!(claim(store, worker, 1, at(100)).await, []);
}

pub(crate) async fn s2_a_stale_attempt_is_fenced_off(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let id = submit(store, a_job()).await;
    let first = claim_one(store, one, at(1)).await;
    expire(store, at(100)).await;
    let second = claim_one(store, two, at(101)).await;
    assert!(first.attempt < second.attempt);

    let late = finish(store, one, first, Succeeded, at(102)).await;

    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    let renewal = store.heartbeat(alive(one, &[first]), at(102), LEASE, END_RULES).await.unwrap();
    assert_eq!(renewal.value.lost, [first]);
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.attempt), (JobState::Running, second.attempt));
    assert_eq!(job.worker_id, Some(two));
}

pub(crate) async fn s2_a_stale_attempt_of_the_same_worker_is_fenced_off(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let stale = claim_one(store, worker, at(1)).await;
    expire(store, at(100)).await;
    let current = claim_one(store, worker, at(101)).await;

    let late = finish(store, worker, stale, Succeeded, at(102)).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    let late = append(store, worker, stale, Stream::Stdout, 0, b"late").await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    let life = alive(worker, &[stale, current]);
    let renewal = store.heartbeat(life, at(102), LEASE, END_RULES).await.unwrap().value;
    assert_eq!(renewal.lost, [stale]);

    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.attempt, job.stdout), (JobState::Running, 2, None));
    finish(store, worker, current, Succeeded, at(103)).await.unwrap();
}

pub(crate) async fn s2_another_workers_attempt_is_fenced_off(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, one, at(1)).await;

    let forged = finish(store, two, key, Succeeded, at(2)).await;

    assert!(matches!(forged, Err(StoreError::LeaseLost)), "{forged:?}");
    assert_eq!(store.job(id).await.unwrap().status, JobState::Running);
}

pub(crate) async fn s3_the_same_report_again_gets_the_same_reply(store: &Shared) {
    let (one, two) = two_workers(store).await;
    submit(store, a_job()).await;
    let first = claim_one(store, one, at(1)).await;
    let reply = finish(store, one, first, GivenBack, at(2)).await.unwrap();
    assert_eq!((reply.state, reply.new), (JobState::Pending, true));
    let second = claim_one(store, two, at(3)).await;
    finish(store, two, second, Succeeded, at(4)).await.unwrap();

    let repeated = finish(store, one, first, GivenBack, at(5)).await.unwrap();
    assert_eq!((repeated.state, repeated.new), (JobState::Pending, false));
    let repeated = finish(store, two, second, Succeeded, at(6)).await.unwrap();
    assert_eq!((repeated.state, repeated.new), (JobState::Completed, false));
}

pub(crate) async fn another_report_of_an_ended_attempt_is_refused(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(1)).await;
    finish(store, worker, key, Succeeded, at(2)).await.unwrap();

    let other = finish(store, worker, key, CommandFailed, at(3)).await;

    assert!(matches!(other, Err(StoreError::LeaseLost)), "{other:?}");
    assert_eq!(store.job(id).await.unwrap().status, JobState::Completed);
}

pub(crate) async fn a_lease_runs_out_only_when_its_time_has_come(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(0)).await;

    assert_eq!(expire(store, at(59)).await, []);
    let expired = expire(store, at(60)).await;

    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].key, key);
    assert_eq!(expired[0].next, NextStep::Requeue { not_before: at(60) });
    let job = store.job(id).await.unwrap();
    assert_eq!(job.status, JobState::Pending);
    assert_eq!(job.attempts[0].ending, Some(WorkerLost));
    assert_eq!(expire(store, at(60)).await, []);
}

pub(crate) async fn s1_a_late_result_counts_while_no_newer_attempt_has_begun(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, one, at(0)).await;
    expire(store, at(60)).await;

    let late = finish(store, one, key, Succeeded, at(3600)).await.unwrap();

    assert_eq!((late.state, late.new), (JobState::Completed, true));
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.attempts.len()), (JobState::Completed, 1));
    assert_eq!(job.attempts[0].ending, Some(Succeeded));
    assert_eq!(claim(store, two, 1, at(3601)).await, []);
    assert_eq!(expire(store, at(7200)).await, []);
}

pub(crate) async fn a_late_heartbeat_takes_the_job_back(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, one, at(0)).await;
    expire(store, at(60)).await;

    let renewal = store.heartbeat(alive(one, &[key]), at(90), LEASE, END_RULES).await.unwrap();

    assert_eq!(renewal.value.lost, []);
    assert_eq!(claim(store, two, 1, at(91)).await, []);
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.attempts[0].ending), (JobState::Running, None));
    assert_eq!(expire(store, at(149)).await, []);
    assert_eq!(expire(store, at(150)).await.len(), 1);
}

pub(crate) async fn a_late_result_of_a_job_that_failed_for_good_is_refused(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job_with(|request| request.on_worker_lost = OnWorkerLost::Fail)).await;
    let key = claim_one(store, worker, at(0)).await;
    expire(store, at(60)).await;
    assert_eq!(store.job(id).await.unwrap().status, JobState::Failed);

    let late = finish(store, worker, key, Succeeded, at(61)).await;

    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    assert_eq!(store.job(id).await.unwrap().status, JobState::Failed);
}

pub(crate) async fn a_job_that_loses_too_many_workers_fails(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    for lost in 0..i64::from(retry::WORKERS_LOST_MAX) {
        claim_one(store, worker, at(lost * 100)).await;
        assert_eq!(expire(store, at(lost * 100 + 60)).await.len(), 1);
    }
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.attempts.len()), (JobState::Failed, 5));
    assert!(job.error_message.unwrap().contains("poison"));
}

pub(crate) async fn a_job_is_tried_again_after_its_backoff(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    submit(store, a_job()).await;
    let first = claim_one(store, worker, at(0)).await;
    finish(store, worker, first, CouldNotRun, at(10)).await.unwrap();

    assert_eq!(claim(store, worker, 1, at(10)).await, []);
    let second = claim_one(store, worker, at(11)).await;
    assert_eq!(second.attempt, 2);
    finish(store, worker, second, CouldNotRun, at(20)).await.unwrap();
    assert_eq!(claim(store, worker, 1, at(21)).await, []);
    assert_eq!(claim(store, worker, 1, at(22)).await.len(), 1);
}

pub(crate) async fn a_job_nobody_can_run_fails_in_the_end(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    for attempt in 0..=i64::from(retry::COULD_NOT_RUN_MAX) {
        let key = claim_one(store, worker, at(attempt * 100)).await;
        finish(store, worker, key, CouldNotRun, at(attempt * 100)).await.unwrap();
    }
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.attempts.len()), (JobState::Failed, 4));
    assert_eq!(job.error_message.as_deref(), Some("no PC could run it"));
}

pub(crate) async fn a_waiting_job_is_cancelled_at_once(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;

    let cancelled = store.cancel(id, at(3)).await.unwrap().value;

    assert_eq!((cancelled.status, cancelled.completed_at), (JobState::Cancelled, Some(at(3))));
    assert_eq!(claim(store, worker, 1, at(4)).await, []);
    assert_eq!(store.cancel(id, at(5)).await.unwrap().value.completed_at, Some(at(3)));
}

pub(crate) async fn a_running_job_is_cancelled_by_its_worker(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(0)).await;

    let asked = store.cancel(id, at(1)).await.unwrap().value;
    assert_eq!((asked.status, asked.cancel_requested), (JobState::Running, true));
    let renewal = store.heartbeat(alive(worker, &[key]), at(2), LEASE, END_RULES).await.unwrap();
    assert_eq!(renewal.value.cancel, [key]);

    let recorded = finish(store, worker, key, AttemptEnding::Cancelled, at(3)).await.unwrap();
    assert_eq!(recorded.state, JobState::Cancelled);
}

pub(crate) async fn a_cancelled_job_of_a_lost_worker_is_cancelled(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    claim_one(store, worker, at(0)).await;
    store.cancel(id, at(1)).await.unwrap();

    let ended = expire(store, at(60)).await;

    assert_eq!(ended[0].next, NextStep::Cancel);
    assert_eq!(store.job(id).await.unwrap().status, JobState::Cancelled);
}

pub(crate) async fn an_ended_job_cannot_be_cancelled(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(0)).await;
    finish(store, worker, key, Succeeded, at(1)).await.unwrap();

    let refused = store.cancel(id, at(2)).await;

    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    let unknown = store.cancel(JobId::generate(), at(2)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("job"))), "{unknown:?}");
}

pub(crate) async fn a_claim_that_was_never_heard_of_is_put_back(store: &Shared) {
    let (one, two) = two_workers(store).await;
    submit(store, a_job()).await;
    let key = claim_one(store, one, at(0)).await;

    let ended = store.unclaim(one, vec![key], at(1), END_RULES).await.unwrap().value;

    assert_eq!(ended[0].next, NextStep::Requeue { not_before: at(1) });
    assert_eq!(claim_one(store, two, at(1)).await.attempt, 2);
    assert_eq!(store.unclaim(one, vec![key], at(2), END_RULES).await.unwrap().value, []);
}

pub(crate) async fn s4_an_idempotency_key_names_one_submission(store: &Shared) {
    let token = TokenId::generate();
    let first = store.create_job(with_key("k", 1, token), at(0)).await.unwrap().value;
    let again = store.create_job(with_key("k", 1, token), at(1)).await.unwrap().value;
    assert_eq!((first.new, again.new), (true, false));
    assert_eq!(again.job.job_id, first.job.job_id);

    let other = store.create_job(with_key("k", 2, token), at(2)).await;

    assert!(matches!(other, Err(StoreError::KeyReused)), "{other:?}");
    assert_eq!(store.jobs(&<_>::default()).await.unwrap().counts.pending, 1);
}

pub(crate) async fn an_idempotency_key_is_its_tokens_own(store: &Shared) {
    let first = submit(store, with_key("k", 1, TokenId::generate())).await;
    let second = submit(store, with_key("k", 2, TokenId::generate())).await;
    assert_ne!(first, second);
}

pub(crate) async fn a_job_waits_for_its_file(store: &Shared) {
    let digest = Digest::of(b"zip");
    let job = a_job_with(|request| request.file_digest = Some(digest));

    let refused = store.create_job(job.clone(), at(0)).await;
    assert!(matches!(refused, Err(StoreError::FileMissing(it)) if it == digest), "{refused:?}");

    store.record_blob(digest, 3, at(0)).await.unwrap();
    store.record_blob(digest, 3, at(1)).await.unwrap();
    assert_eq!(store.blob_size(digest).await.unwrap(), Some(3));
    store.create_job(job, at(1)).await.unwrap();
}

pub(crate) async fn artifacts_are_the_results_of_the_attempt(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(0)).await;
    let artifact = an_artifact();
    store.record_blob(artifact.digest, artifact.size_bytes, at(1)).await.unwrap();
    let mut done = report(worker, key, Succeeded);
    done.artifacts = vec![artifact.clone()];

    store.finish(done, at(2), END_RULES).await.unwrap();

    assert_eq!(store.job(id).await.unwrap().artifacts, [artifact]);
}

pub(crate) async fn an_artifact_that_was_not_uploaded_is_refused(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    let key = claim_one(store, worker, at(0)).await;
    let mut done = report(worker, key, Succeeded);
    done.artifacts = vec![an_artifact()];

    let refused = store.finish(done, at(2), END_RULES).await;

    assert!(matches!(refused, Err(StoreError::FileMissing(_))), "{refused:?}");
    assert_eq!(store.job(id).await.unwrap().status, JobState::Running);
}

pub(crate) async fn claimable_jobs_are_counted_for_each_level(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L2).await;
    submit(store, a_job()).await;
    let key = claim_one(store, worker, at(0)).await;
    finish(store, worker, key, CouldNotRun, at(10)).await.unwrap();
    for _ in 0..5 {
        submit(store, isolated(SandboxLevel::L3)).await;
    }
    let count = async || {
        let ready = store.claimable(3).await.unwrap();
        let mut levels: Vec<_> =
            ready.into_iter().map(|job| (job.requirements.min_sandbox, job.jobs)).collect();
        levels.sort_unstable();
        levels
    };
    store.tick(at(10), 10).await.unwrap();
    assert_eq!(count().await, [(SandboxLevel::L3, 3)]);
    store.tick(at(11), 10).await.unwrap();
    assert_eq!(count().await, [(SandboxLevel::L2, 1), (SandboxLevel::L3, 3)]);
}

fn an_artifact() -> Artifact {
    Artifact { name: "outputs.zip".to_owned(), digest: Digest::of(b"out"), size_bytes: 3 }
}
