//! Workers over HTTP: enrolling, claiming, waiting, and the fence between attempts.

use std::time::Duration;

use lull_shared::{
    credentials::{BearerToken, Role},
    ids::WorkerId,
    jobs::{FailureKind, JobState, ReportFailure, SubmitResult},
    output::{AppendQuery, Stream},
    problem::ProblemKind,
    workers::{Heartbeat, WorkerState},
};

use crate::support::{TestCoordinator, eventually, machine, submit};

fn result(job_id: lull_shared::ids::JobId, attempt: u32) -> SubmitResult {
    let (artifacts, output) = (Vec::new(), Vec::new());
    SubmitResult { job_id, attempt, exit_code: Some(0), error_message: None, artifacts, output }
}

#[tokio::test]
async fn a_join_code_lets_in_as_many_pcs_as_it_says() {
    let coordinator = TestCoordinator::start().await;
    let code = coordinator.join_code(1).await;
    let joiner = coordinator.stranger().with_token(code.bearer());
    let id = WorkerId::generate();
    let token = BearerToken::generate_worker(id).to_text();

    joiner.register(&machine(id, "first", Some(&token))).await.unwrap();
    joiner.register(&machine(id, "first", Some(&token))).await.expect("a lost reply costs nothing");

    let other = WorkerId::generate();
    let others = BearerToken::generate_worker(other).to_text();
    let refused = joiner.register(&machine(other, "second", Some(&others))).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::JoinRefused);

    let member = coordinator.stranger().with_token(token);
    member.register(&machine(id, "renamed", None)).await.unwrap();
    let list = coordinator.client(Role::Viewer).await.list_workers().await.unwrap();
    assert_eq!(list.workers.len(), 1);
    assert_eq!(list.workers[0].hostname, "renamed");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_known_id_with_another_secret_is_refused() {
    let coordinator = TestCoordinator::start().await;
    let worker = coordinator.worker("victim").await;
    let code = coordinator.join_code(5).await;
    let forged = BearerToken::generate_worker(worker.id).to_text();
    let joiner = coordinator.stranger().with_token(code.bearer());
    let refused = joiner.register(&machine(worker.id, "thief", Some(&forged))).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::Conflict);
}

#[tokio::test]
async fn an_expired_join_code_is_refused() {
    let coordinator = TestCoordinator::start().await;
    let code = coordinator.join_code(5).await;
    coordinator.clock.advance(Duration::from_secs(3601));
    let id = WorkerId::generate();
    let token = BearerToken::generate_worker(id).to_text();
    let joiner = coordinator.stranger().with_token(code.bearer());
    let refused = joiner.register(&machine(id, "late", Some(&token))).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::JoinRefused);
}

#[tokio::test]
async fn a_waiting_worker_gets_the_job_the_moment_it_comes() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("waiting").await;

    let (claimed, job) = tokio::join!(worker.claim(20), submit(&user));

    assert_eq!(claimed.expect("it waited").job_id, job);
    assert!(worker.claim(0).await.is_none(), "there was only one");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_waiting_at_once() {
    let coordinator = TestCoordinator::start().await;
    let worker = coordinator.worker("waiting").await;
    let waiting = tokio::spawn(async move { worker.claim(60).await });
    eventually("the worker waits", async || {
        let list = coordinator.client(Role::Viewer).await.list_workers().await.unwrap();
        (list.workers.len() == 1).then_some(())
    })
    .await;
    coordinator.stop().await;
    // Served empty, or its connection ended before it was heard: either way nobody waits a minute.
    drop(waiting);
}

#[tokio::test]
async fn a_job_outlives_its_worker_and_the_late_result_changes_nothing() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let (doomed, rescuer) =
        (coordinator.worker("doomed").await, coordinator.worker("rescuer").await);
    let job = submit(&user).await;
    let first = doomed.claim(5).await.expect("the queue has one job");

    coordinator.clock.advance(Duration::from_millis(first.lease_ms + 1000));
    let second = eventually("the job is claimable again", async || rescuer.claim(1).await).await;
    assert_eq!(second.job_id, job);
    assert!(first.attempt < second.attempt);

    let late = doomed.client.submit_result(&result(job, first.attempt)).await.unwrap_err();
    assert_eq!(late.kind(), ProblemKind::LeaseLost);

    let done = rescuer.client.submit_result(&result(job, second.attempt)).await.unwrap();
    assert_eq!(done.status, JobState::Completed);
    let again = rescuer.client.submit_result(&result(job, second.attempt)).await.unwrap();
    assert_eq!(again, done, "the same report again gets the same reply");
    coordinator.stop().await;
}

#[tokio::test]
async fn s2_an_attempt_that_is_another_s_or_never_was_changes_nothing() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let (holder, other) = (coordinator.worker("holder").await, coordinator.worker("other").await);
    let job = submit(&user).await;
    let claimed = holder.claim(5).await.expect("the queue has one job");
    let before = user.job_status(job).await.unwrap();
    for (sender, attempt) in [(&other, 1), (&other, 2), (&holder, 2), (&holder, 0)] {
        let forged = sender.client.submit_result(&result(job, attempt)).await.unwrap_err();
        assert_eq!(forged.to_problem().status, 409);
        assert_eq!(forged.kind(), ProblemKind::LeaseLost);
        let report = ReportFailure {
            job_id: job,
            attempt,
            kind: FailureKind::ExecFailed,
            error_message: "mine now".to_owned(),
        };
        let forged = sender.client.report_failure(&report).await.unwrap_err();
        assert_eq!(forged.kind(), ProblemKind::LeaseLost);
        let query = AppendQuery { job_id: job, attempt, stream: Stream::Stdout, offset: 0 };
        let forged = sender.client.stream_output(&query, "lies".into()).await.unwrap_err();
        assert_eq!(forged.kind(), ProblemKind::LeaseLost);
    }
    let beat = Heartbeat {
        worker_id: other.id,
        status: WorkerState::Working,
        reason: None,
        running: vec![claimed.key()],
    };
    assert_eq!(other.client.heartbeat(&beat).await.unwrap().lost, [claimed.key()]);
    assert_eq!(user.job_status(job).await.unwrap(), before);
    let done = holder.client.submit_result(&result(job, claimed.attempt)).await.unwrap();
    assert_eq!(done.status, JobState::Completed);
}

#[tokio::test]
async fn s3_a_result_that_comes_again_is_recorded_once() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("pc").await;
    let job = submit(&user).await;
    worker.claim(5).await.expect("the queue has one job");
    let first = worker.client.submit_result(&result(job, 1)).await.unwrap();
    let recorded = user.job_status(job).await.unwrap();

    coordinator.clock.advance(Duration::from_secs(5));
    assert_eq!(worker.client.submit_result(&result(job, 1)).await.unwrap(), first);
    assert_eq!(user.job_status(job).await.unwrap(), recorded);
    let other = SubmitResult { exit_code: Some(1), ..result(job, 1) };
    let refused = worker.client.submit_result(&other).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::LeaseLost, "another result is another report");
    assert_eq!(user.job_status(job).await.unwrap(), recorded);
}

#[tokio::test]
async fn s1_a_clock_that_leaps_ahead_loses_no_job_and_no_result() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("pc").await;
    let job = submit(&user).await;
    let claimed = worker.claim(5).await.expect("the queue has one job");
    coordinator.clock.advance(Duration::from_secs(8 * 60 * 60));
    eventually("its lease ran out", async || {
        user.job_status(job).await.ok().filter(|job| job.status == JobState::Pending)
    })
    .await;
    let beat = Heartbeat {
        worker_id: worker.id,
        status: WorkerState::Working,
        reason: None,
        running: vec![claimed.key()],
    };
    assert_eq!(worker.client.heartbeat(&beat).await.unwrap().lost, []);
    let done = worker.client.submit_result(&result(job, 1)).await.unwrap();
    assert_eq!(done.status, JobState::Completed);
    assert_eq!(user.job_status(job).await.unwrap().attempts.len(), 1);
}

#[tokio::test]
async fn s1_a_clock_that_is_set_back_keeps_no_job_from_another_worker() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let (silent, other) = (coordinator.worker("silent").await, coordinator.worker("other").await);
    let job = submit(&user).await;
    silent.claim(5).await.expect("the queue has one job");
    coordinator.clock.set_back(Duration::from_secs(24 * 60 * 60));
    let again = eventually("another one has it long before a day is over", async || {
        coordinator.clock.advance(Duration::from_secs(5));
        other.claim(0).await
    })
    .await;
    assert_eq!((again.job_id, again.attempt), (job, 2));
}

#[tokio::test]
async fn a_cancel_reaches_the_worker_by_its_heartbeat() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("busy").await;
    let job = submit(&user).await;
    let claimed = worker.claim(5).await.expect("the queue has one job");

    let asked = user.cancel_job(job).await.unwrap();
    assert!(asked.cancel_requested);
    let beat = Heartbeat {
        worker_id: worker.id,
        status: WorkerState::Working,
        reason: None,
        running: vec![claimed.key()],
    };
    assert_eq!(worker.client.heartbeat(&beat).await.unwrap().cancel, [claimed.key()]);
    let report = ReportFailure {
        job_id: job,
        attempt: claimed.attempt,
        kind: FailureKind::Cancelled,
        error_message: "cancelled".to_owned(),
    };
    let ended = worker.client.report_failure(&report).await.unwrap();
    assert_eq!(ended.status, JobState::Cancelled);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_worker_speaks_for_itself_only() {
    let coordinator = TestCoordinator::start().await;
    let (one, other) = (coordinator.worker("one").await, coordinator.worker("other").await);
    let beat = Heartbeat {
        worker_id: other.id,
        status: WorkerState::Offline,
        reason: None,
        running: Vec::new(),
    };
    let refused = one.client.heartbeat(&beat).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::Forbidden);
    let refused = one.client.register(&machine(other.id, "x", None)).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::Forbidden);
}

#[tokio::test]
async fn a_silent_worker_is_shown_offline_after_thirty_seconds() {
    let coordinator = TestCoordinator::start().await;
    coordinator.worker("quiet").await;
    coordinator.clock.advance(Duration::from_secs(31));
    let list = coordinator.client(Role::Viewer).await.list_workers().await.unwrap();
    assert_eq!(list.workers[0].status, WorkerState::Offline);
}
