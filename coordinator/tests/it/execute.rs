//! The form of the origin: a file and commands, for the pool or for this machine.

use futures_util::StreamExt as _;
use lull_shared::{
    credentials::Role,
    execute::ExecuteReply,
    jobs::JobState,
    output::{OutputEvent, OutputView},
    problem::ProblemKind,
};
use reqwest::{
    Method, Response,
    multipart::{Form, Part},
};
use secrecy::ExposeSecret as _;

use crate::support::{TestCoordinator, eventually, problem};

async fn execute(coordinator: &TestCoordinator, form: Form) -> Response {
    let token = coordinator.token(Role::Submitter).await;
    let request = coordinator.request(Method::POST, "/api/execute");
    request.bearer_auth(token.expose_secret()).multipart(form).send().await.unwrap()
}

fn empty_zip() -> Part {
    Part::bytes(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()).file_name("in.zip")
}

#[tokio::test]
async fn a_form_for_the_pool_becomes_a_job_with_its_file() {
    let coordinator = TestCoordinator::start().await;
    let form = Form::new()
        .text("commands", "make\r\nmake test")
        .text("outputs", "out/*\n\n*.log\n")
        .part("file", empty_zip());
    let reply: ExecuteReply = execute(&coordinator, form).await.json().await.unwrap();
    let client = coordinator.client(Role::Viewer).await;
    let job = client.job_status(reply.job_id).await.unwrap();
    assert_eq!(job.status, JobState::Pending);
    assert_eq!(job.command, "make\nmake test");
    assert_eq!(job.filename.as_deref(), Some("in.zip"));
    assert_eq!(job.outputs, ["out/*", "*.log"]);
    assert!(job.file_url.is_some());
    coordinator.stop().await;
}

#[tokio::test]
async fn a_bad_form_creates_nothing() {
    let coordinator = TestCoordinator::start().await;
    let no_zip = Part::bytes(b"this is no archive".to_vec()).file_name("x.zip");
    let form = Form::new().text("commands", "true").part("file", no_zip);
    let refused = problem(execute(&coordinator, form).await).await;
    assert_eq!(refused.kind, ProblemKind::ArchiveRefused);
    let with_command = || Form::new().text("commands", "true");
    for (form, kind) in [
        (Form::new(), ProblemKind::Invalid),
        (Form::new().text("commands", " "), ProblemKind::SubmissionRefused),
        (with_command().text("mode", "sideways"), ProblemKind::Invalid),
        (with_command().text("surprise", "1"), ProblemKind::Invalid),
        (with_command().text("outputs", "../x"), ProblemKind::SubmissionRefused),
    ] {
        assert_eq!(problem(execute(&coordinator, form).await).await.kind, kind);
    }
    let client = coordinator.client(Role::Viewer).await;
    assert_eq!(client.list_jobs(&Default::default()).await.unwrap().counts.pending, 0);
    let staged = std::fs::read_dir(coordinator.data.path().join("staging")).unwrap();
    assert_eq!(staged.count(), 0);
}

#[tokio::test]
async fn direct_mode_is_off_unless_it_was_switched_on() {
    let coordinator = TestCoordinator::start().await;
    let form = Form::new().text("mode", "direct").text("commands", "true");
    let refused = problem(execute(&coordinator, form).await).await;
    assert_eq!(refused.kind, ProblemKind::DirectModeOff);
    assert!(!coordinator.client(Role::Viewer).await.whoami().await.unwrap().direct_mode);
}

#[cfg(unix)]
#[tokio::test]
async fn a_direct_run_streams_its_output_and_brings_its_files() {
    let coordinator = TestCoordinator::start_with(|config| config.allow_direct = true).await;
    let client = coordinator.client(Role::Submitter).await;
    let outputs = ["*.txt".to_owned()];
    let commands = "echo made > made.txt\necho seen; echo wrong >&2\nexit 3\necho never";
    let mut events =
        client.execute_direct(commands, &outputs, None, OutputView::Terminal).await.unwrap();
    let mut text = String::new();
    let mut ended = None;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            OutputEvent::Output { data, .. } => text.push_str(&data),
            OutputEvent::Ended { job } => ended = Some(job),
            OutputEvent::Started { .. }
            | OutputEvent::Dropped { .. }
            | OutputEvent::Requeued { .. } => {}
        }
    }
    let job = ended.expect("the stream ends with the job");
    assert!(
        text.contains("seen\n") && text.contains("wrong\n") && !text.contains("never"),
        "{text}"
    );
    assert_eq!(job.status, JobState::Failed);
    assert_eq!(job.exit_code, Some(3));
    assert_eq!(job.artifacts[0].name, "outputs.zip");
    assert!(client.has_file(job.artifacts[0].digest).await.unwrap().is_some());
    assert!(client.job_status(job.job_id).await.is_err(), "it is not stored");
    coordinator.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_direct_run_ends_when_its_caller_goes_away() {
    let coordinator = TestCoordinator::start_with(|config| config.allow_direct = true).await;
    let run = async || {
        let form = Form::new().text("mode", "direct").text("commands", "sleep 600");
        execute(&coordinator, form).await
    };
    let (first, second) = (run().await, run().await);
    assert_eq!(
        (first.status(), second.status()),
        (reqwest::StatusCode::OK, reqwest::StatusCode::OK)
    );
    assert_eq!(problem(run().await).await.kind, ProblemKind::RateLimited, "two at once");

    drop((first, second));
    eventually("there is room again", async || {
        let reply = run().await;
        (reply.status() == 200).then_some(())
    })
    .await;
    let folder = coordinator.data.path().join("direct");
    eventually("their folders are gone", async || {
        std::fs::read_dir(&folder).unwrap().next().is_none().then_some(())
    })
    .await;
    coordinator.stop().await;
}
