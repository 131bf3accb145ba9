//! Output over HTTP: appending with resume, and following with resume.

use bytes::Bytes;
use futures_util::StreamExt as _;
use lull_shared::{
    credentials::Role,
    ids::JobId,
    jobs::{JobState, SubmitResult},
    output::{AppendQuery, OutputEvent, OutputQuery, OutputView, Stream},
    problem::ProblemKind,
};
use reqwest::Method;
use secrecy::ExposeSecret as _;

use crate::support::{PATIENCE, TestCoordinator, TestWorker, problem, submit};

async fn append(
    worker: &TestWorker,
    job_id: JobId,
    offset: u64,
    bytes: &'static [u8],
) -> Result<u64, lull_shared::client::ClientError> {
    let query = AppendQuery { job_id, attempt: 1, stream: Stream::Stdout, offset };
    worker.client.stream_output(&query, Bytes::from_static(bytes)).await.map(|r| r.next_offset)
}

async fn finish(worker: &TestWorker, job_id: JobId) {
    let result = SubmitResult {
        job_id,
        attempt: 1,
        exit_code: Some(0),
        error_message: None,
        artifacts: Vec::new(),
        output: Vec::new(),
    };
    worker.client.submit_result(&result).await.unwrap();
}

fn stdout(job_id: JobId) -> OutputQuery {
    OutputQuery { job_id, stream: None, attempt: None, view: None }
}

#[tokio::test]
async fn output_sent_twice_is_stored_once_and_a_gap_is_refused() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("w").await;
    let job = submit(&user).await;
    worker.claim(5).await.expect("the queue has one job");

    assert_eq!(append(&worker, job, 0, b"hello ").await.unwrap(), 6);
    assert_eq!(append(&worker, job, 0, b"hello ").await.unwrap(), 6);
    assert_eq!(append(&worker, job, 3, b"lo world").await.unwrap(), 11);
    let gap = append(&worker, job, 20, b"!").await.unwrap_err();
    assert_eq!(gap.kind(), ProblemKind::OffsetMismatch);
    assert_eq!(gap.to_problem().next_offset, Some(11));

    assert_eq!(user.output_bytes(&stdout(job)).await.unwrap(), "hello world");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_follower_sees_everything_from_the_first_byte_to_the_end() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("w").await;
    let job = submit(&user).await;
    let mut events = user.follow_output(job, OutputView::Terminal);
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            seen.push(event.unwrap());
        }
        seen
    });

    worker.claim(5).await.expect("the queue has one job");
    append(&worker, job, 0, b"one\n").await.unwrap();
    append(&worker, job, 4, b"\x1b]0;title\x07two\n").await.unwrap();
    finish(&worker, job).await;

    let seen = tokio::time::timeout(PATIENCE, following).await.unwrap().unwrap();
    let text: String = seen
        .iter()
        .filter_map(|event| {
            if let OutputEvent::Output { data, .. } = event { Some(data.as_str()) } else { None }
        })
        .collect();
    assert_eq!(text, "one\ntwo\n");
    assert!(matches!(&seen[0], OutputEvent::Started { attempt: 1, hostname } if hostname == "w"));
    let Some(OutputEvent::Ended { job }) = seen.last() else { panic!("{seen:?}") };
    assert_eq!(job.status, JobState::Completed);
    coordinator.stop().await;
}

#[tokio::test]
async fn l2_bytes_that_are_no_text_are_kept_and_shown_all_the_same() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("w").await;
    let job = submit(&user).await;
    worker.claim(5).await.expect("the queue has one job");
    // A character in two pieces, bytes of none, half of a pair, NUL, and one that never ends.
    let pieces: [&[u8]; 4] = [b"gr\xc3", b"\xb6n \xff\xfe", b"\xed\xa0\x80\0 e", b"nd\xe2\x82"];
    let mut offset = 0;
    for piece in pieces {
        offset = append(&worker, job, offset, piece).await.unwrap();
    }
    finish(&worker, job).await;

    assert_eq!(user.output_bytes(&stdout(job)).await.unwrap(), pieces.concat());
    let mut shown = String::new();
    let mut events = user.follow_output(job, OutputView::Terminal);
    while let Some(event) = events.next().await {
        if let OutputEvent::Output { data, .. } = event.unwrap() {
            shown.push_str(&data);
        }
    }
    assert!(shown.starts_with("gr\u{f6}n \u{fffd}\u{fffd}"), "{shown:?}");
    assert!(shown.contains(" end") && !shown.contains('\0'), "{shown:?}");
    let listed = user.job_status(job).await.unwrap().stdout.unwrap();
    assert!(listed.starts_with("gr\u{f6}n ") && listed.contains(" end"), "{listed:?}");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_follower_resumes_after_the_last_id_it_saw() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("w").await;
    let job = submit(&user).await;
    worker.claim(5).await.expect("the queue has one job");
    append(&worker, job, 0, b"one").await.unwrap();
    append(&worker, job, 3, b"two").await.unwrap();
    finish(&worker, job).await;

    let all = events(&coordinator, job, None).await;
    let ids: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids.len(), 4, "started, two pieces, ended: {all}");
    let rest = events(&coordinator, job, Some(ids[1])).await;
    assert!(rest.starts_with("event: output\n"), "{rest}");
    assert!(all.ends_with(&rest) || all.contains(rest.trim()), "the rest is the end of all");
    assert_eq!(rest.matches("event: ").count(), 2);
    coordinator.stop().await;
}

async fn events(coordinator: &TestCoordinator, job: JobId, after: Option<&str>) -> String {
    let token = coordinator.token(Role::Viewer).await;
    let mut request = coordinator
        .request(Method::GET, &format!("/api/jobs/output?jobId={job}"))
        .bearer_auth(token.expose_secret())
        .header("accept", "text/event-stream");
    if let Some(id) = after {
        request = request.header("last-event-id", id);
    }
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    tokio::time::timeout(PATIENCE, reply.text()).await.expect("the job has ended").unwrap()
}

#[tokio::test]
async fn following_nothing_and_resuming_after_nonsense_are_refused() {
    let coordinator = TestCoordinator::start().await;
    let token = coordinator.token(Role::Viewer).await;
    let job = JobId::generate();
    let path = format!("/api/jobs/output?jobId={job}");
    let ask = || {
        coordinator
            .request(Method::GET, &path)
            .bearer_auth(token.expose_secret())
            .header("accept", "text/event-stream")
    };
    assert_eq!(problem(ask().send().await.unwrap()).await.kind, ProblemKind::NotFound);
    let nonsense = ask().header("last-event-id", "../1").send().await.unwrap();
    assert_eq!(problem(nonsense).await.kind, ProblemKind::Invalid);
}

#[tokio::test]
async fn a_shutdown_ends_followers() {
    let coordinator = TestCoordinator::start().await;
    let user = coordinator.client(Role::Submitter).await;
    let worker = coordinator.worker("w").await;
    let job = submit(&user).await;
    worker.claim(5).await.expect("the queue has one job");
    let mut events = user.follow_output(job, OutputView::Raw);
    assert!(matches!(events.next().await, Some(Ok(OutputEvent::Started { .. }))));
    coordinator.stop().await;
}
