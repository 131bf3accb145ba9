//! The job model over HTTP: arrays, holding, waiting for others, explanations, draining, several results at once, and
//! the feed of changes.

use std::time::Duration;

use futures_util::StreamExt as _;
use lull_shared::{
    credentials::Role,
    events::PoolEvent,
    ids::JobId,
    jobs::{
        CreateJob, JobFilter, JobState, ResultOutcome, SubmitResult, SubmitResults, WaitReason,
    },
    problem::ProblemKind,
    workers::WorkerState,
};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::support::{TestCoordinator, echo_job, eventually, problem, submit};

fn result(job_id: JobId, attempt: u32) -> SubmitResult {
    let (artifacts, output) = (Vec::new(), Vec::new());
    SubmitResult { job_id, attempt, exit_code: Some(0), error_message: None, artifacts, output }
}

#[tokio::test]
async fn a_waiting_worker_is_woken_for_a_job_that_is_released() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let held = user.create_job(&CreateJob { hold: true, ..echo_job() }).await.unwrap();
    let worker = coordinator.worker("pc").await;
    let waiting = tokio::spawn(async move { worker.claim(30).await });

    assert!(!user.release_job(held.job_id).await.unwrap().held);

    assert_eq!(waiting.await.unwrap().unwrap().job_id, held.job_id);
    assert_eq!(user.hold_job(held.job_id).await.unwrap_err().kind(), ProblemKind::Conflict);
}

#[tokio::test]
async fn an_array_runs_and_is_listed_as_one() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let items = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let array = user.create_job(&CreateJob { items, ..echo_job() }).await.unwrap();
    let worker = coordinator.worker("pc").await;
    let mut seen = Vec::new();
    while let Some(job) = worker.claim(0).await {
        seen.push(job.env["LULL_ITEM"].clone());
        worker.client.submit_result(&result(job.job_id, job.attempt)).await.unwrap();
    }
    assert_eq!(seen, ["a", "b", "c"]);
    let ended = user.job_status(array.job_id).await.unwrap();
    assert_eq!((ended.status, ended.array.unwrap().completed), (JobState::Completed, 3));
    let listed = user.list_jobs(&JobFilter::default()).await.unwrap();
    assert_eq!(listed.jobs.len(), 1);
    let filter = JobFilter { array_id: Some(array.job_id), ..JobFilter::default() };
    assert_eq!(user.list_jobs(&filter).await.unwrap().jobs.len(), 3);
}

#[tokio::test]
async fn a_pending_job_is_explained() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let job = submit(&user).await;
    let why = user.explain_job(job).await.unwrap();
    assert_eq!(why.reason, Some(WaitReason::NoneFits));
    assert!(why.sentences[0].contains("No PC has joined"), "{why:?}");

    let worker = coordinator.worker("pc").await;
    let other = submit(&user).await;
    worker.claim(0).await.unwrap();
    let why = user.explain_job(other).await.unwrap();
    assert_eq!(why.pool.unwrap().fitting, 1);
    let unknown = user.explain_job(JobId::generate()).await.unwrap_err();
    assert_eq!(unknown.kind(), ProblemKind::NotFound);
}

#[tokio::test]
async fn several_results_are_recorded_or_refused_one_by_one() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("pc").await;
    let (first, second) = (submit(&user).await, submit(&user).await);
    for _ in 0..2 {
        worker.claim(0).await.unwrap();
    }
    let results = vec![result(first, 1), result(second, 7), result(second, 1)];

    let replies = worker.client.submit_results(&SubmitResults { results }).await.unwrap().replies;

    let [
        ResultOutcome::Recorded(one),
        ResultOutcome::Refused(refused),
        ResultOutcome::Recorded(two),
    ] = &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!((one.job_id, two.job_id), (first, second));
    assert_eq!(refused.kind, ProblemKind::LeaseLost);
    for job in [first, second] {
        assert_eq!(user.job_status(job).await.unwrap().status, JobState::Completed);
    }
}

#[tokio::test]
async fn h4_a_wrong_field_of_one_of_several_results_is_named() {
    let coordinator = TestCoordinator::start().await;
    let worker = coordinator.worker("pc").await;
    for (body, path) in [
        (json!({"results": [{"jobId": 3, "attempt": 1}]}), "results[0].jobId"),
        (json!({"results": "none"}), "results"),
        (json!({"attempt": 1}), "missing field `jobId`"),
        (
            json!({"results": vec![json!({"jobId": JobId::generate(), "attempt": 1, "exitCode": 0}); 65]}),
            "results",
        ),
    ] {
        let sent = coordinator
            .request(Method::POST, "/api/jobs/submit-result")
            .bearer_auth(worker.token.expose_secret())
            .json(&body)
            .send()
            .await
            .unwrap();
        let refused = problem(sent).await;
        assert_eq!(refused.kind, ProblemKind::Invalid);
        let detail = refused.detail.unwrap();
        assert!(detail.starts_with(path), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_drained_pc_is_told_and_gets_nothing() {
    let coordinator = TestCoordinator::start().await;
    let admin = coordinator.client(Role::Admin).await;
    let worker = coordinator.worker("pc").await;
    let drained = admin.drain_worker(worker.id, true).await.unwrap();
    assert_eq!((drained.status, drained.draining), (WorkerState::Draining, true));
    let job = submit(&admin).await;
    assert!(worker.claim(0).await.is_none());
    admin.drain_worker(worker.id, false).await.unwrap();
    assert_eq!(worker.claim(0).await.unwrap().job_id, job);
    let unknown = admin.drain_worker(lull_shared::ids::WorkerId::generate(), true).await;
    assert_eq!(unknown.unwrap_err().kind(), ProblemKind::NotFound);
}

#[tokio::test]
async fn an_ended_job_is_submitted_again() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let old = submit(&user).await;
    assert_eq!(user.resubmit_job(old).await.unwrap_err().kind(), ProblemKind::Conflict);
    user.cancel_job(old).await.unwrap();
    let again = user.resubmit_job(old).await.unwrap();
    assert_eq!((again.status, again.resubmitted_from), (JobState::Pending, Some(old)));
}

#[tokio::test]
async fn a_reader_of_the_feed_sees_each_change_and_goes_on_where_it_was() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let mut feed = Feed::open(&coordinator, None).await;
    assert_eq!(feed.next().await.1, PoolEvent::Reset);

    let job = submit(&user).await;
    let created = feed.next().await;
    user.cancel_job(job).await.unwrap();
    let cancelled = feed.next().await;

    let change = |status| PoolEvent::Job { job_id: job, status, attempt: 0, array_id: None };
    assert_eq!(created.1, change(JobState::Pending));
    assert_eq!(cancelled.1, change(JobState::Cancelled));
    let mut resumed = Feed::open(&coordinator, Some(&created.0)).await;
    assert_eq!(resumed.next().await, cancelled);
    let mut unknown = Feed::open(&coordinator, Some("1-1")).await;
    assert_eq!(unknown.next().await.1, PoolEvent::Reset, "another run of the coordinator");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_too_long_fails_by_itself() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let job = CreateJob { max_queue_secs: Some(60), ..echo_job() };
    let job = user.create_job(&job).await.unwrap().job_id;
    coordinator.clock.advance(Duration::from_secs(61));
    let ended = eventually("it failed", async || {
        user.job_status(job).await.ok().filter(|job| job.status == JobState::Failed)
    })
    .await;
    assert!(ended.error_message.unwrap().contains("no PC took it"));
}

/// A reader of `/api/events` that takes the stream apart by hand.
struct Feed {
    bytes: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Feed {
    async fn open(coordinator: &TestCoordinator, after: Option<&str>) -> Self {
        let token = coordinator.token(Role::Viewer).await;
        let mut request =
            coordinator.request(Method::GET, "/api/events").bearer_auth(token.expose_secret());
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let reply = request.send().await.unwrap().error_for_status().unwrap();
        Self { bytes: reply.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event and its id.
    async fn next(&mut self) -> (String, PoolEvent) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                };
                let found = field("id: ").zip(field("data: "));
                self.text = rest.to_owned();
                let Some((id, data)) = found else { continue };
                return (id, serde_json::from_str(&data).unwrap());
            }
            let chunk = self.bytes.next().await.expect("the stream goes on").unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
