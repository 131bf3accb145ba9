//! Jobs from the claim to the recorded result.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_job_runs_and_is_remembered() {
    let stage = Stage::always().await;
    let job = job("say hello\nexit 3");
    stage.coordinator.offer(job.clone());
    assert_eq!(stage.result_of(&job).await, Some(3));
    assert_eq!(stage.coordinator.output_of(job.key(), Stream::Stdout), "hello");
    stage.nothing_is_left().await;

    let rows = stage.worker.history(5).await.unwrap().attempts;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].ending, rows[0].exit_code), (Some(AttemptEnding::CommandFailed), Some(3)));
    assert_eq!((rows[0].submitted_by.as_str(), rows[0].ended_at.is_some()), ("ana", true));
}

#[tokio::test(start_paused = true)]
async fn a_job_without_output_costs_one_request() {
    let stage = Stage::always().await;
    let job = job("exit 0");
    stage.coordinator.offer(job.clone());
    assert_eq!(stage.result_of(&job).await, Some(0));
    assert_eq!(stage.coordinator.count(Request::SubmitResult), 1);
    assert_eq!(stage.coordinator.count(Request::StreamOutput), 0);
}

#[tokio::test(start_paused = true)]
async fn output_arrives_while_the_job_runs() {
    let stage = Stage::always().await;
    let job = job("say first\nstay\nsay  second");
    stage.coordinator.offer(job.clone());
    let output = || stage.coordinator.output_of(job.key(), Stream::Stdout);
    eventually("the first line arrives", || output() == "first").await;
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&job).await, Some(0));
    assert_eq!(output(), "first second");
}

#[tokio::test(start_paused = true)]
async fn lost_requests_and_replies_lose_and_repeat_nothing() {
    let stage = Stage::always().await;
    for failure in [Failure::RequestLost, Failure::ReplyLost] {
        stage.coordinator.fail_next(Request::StreamOutput, failure);
        stage.coordinator.fail_next(Request::SubmitResult, failure);
        stage.coordinator.fail_next(Request::GetJob, Failure::RequestLost);
    }
    let job = job("say one\nstay\nsay  two");
    stage.coordinator.offer(job.clone());
    let streamed = || stage.coordinator.count(Request::StreamOutput) >= 3;
    eventually("output was sent again", streamed).await;
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&job).await, Some(0));
    stage.nothing_is_left().await;
    assert_eq!(stage.coordinator.output_of(job.key(), Stream::Stdout), "one two");
    let results = stage.coordinator.now().results.clone();
    assert!(results.iter().all(|result| result == &results[0]), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fenced_report_is_dropped() {
    let stage = Stage::always().await;
    stage.coordinator.fail_next(Request::SubmitResult, Failure::Refused(ProblemKind::LeaseLost));
    let job = job("exit 0");
    stage.coordinator.offer(job.clone());
    eventually("it was tried", || stage.coordinator.count(Request::SubmitResult) == 1).await;
    stage.nothing_is_left().await;
    assert_eq!(stage.coordinator.count(Request::SubmitResult), 1);
    assert!(stage.coordinator.now().reports.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_refused_for_good_becomes_a_failure() {
    let stage = Stage::always().await;
    stage.coordinator.fail_next(Request::SubmitResult, Failure::Refused(ProblemKind::Invalid));
    let job = job("exit 0");
    stage.coordinator.offer(job.clone());
    assert_eq!(stage.failure_of(&job).await, FailureKind::Internal);
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_is_killed_and_reported_so() {
    let stage = Stage::always().await;
    let by_heartbeat = job("stay");
    stage.coordinator.offer(by_heartbeat.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.now().next_heartbeat.cancel = vec![by_heartbeat.key()];
    let cancelled = tokio::time::Instant::now();
    assert_eq!(stage.failure_of(&by_heartbeat).await, FailureKind::Cancelled);
    assert!(cancelled.elapsed().as_secs() < 6, "{:?}", cancelled.elapsed());
    stage.saw(&[Seen::Started, Seen::Killed]).await;

    stage.coordinator.now().cancel_on_output = true;
    let by_output = job("say x\nstay");
    stage.coordinator.offer(by_output.clone());
    assert_eq!(stage.failure_of(&by_output).await, FailureKind::Cancelled);
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_job_does_not_wait_for_the_last_report() {
    let stage = Stage::set(true, 1).await;
    stage.coordinator.fail_next(Request::SubmitResult, Failure::Hangs);
    let (first, second) = (job("exit 1"), job("exit 2"));
    stage.coordinator.offer(first.clone());
    stage.coordinator.offer(second.clone());
    assert_eq!(stage.result_of(&second).await, Some(2));
    assert_eq!(stage.coordinator.now().results.len(), 1);
    let named = || stage.coordinator.now().heartbeats.last().map(|beat| beat.running.clone());
    eventually("what is not reported is still named", || named() == Some(vec![first.key()])).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_is_asked_for_than_there_is_room() {
    let stage = Stage::set(true, 3).await;
    for _ in 0..2 {
        stage.coordinator.offer(job("stay"));
    }
    stage.saw(&[Seen::Started, Seen::Started]).await;
    let max = || stage.coordinator.now().claims.last().and_then(|claim| claim.max);
    eventually("it asks for one more", || max() == Some(1)).await;
    stage.coordinator.offer(job("stay"));
    stage.saw(&[Seen::Started; 3]).await;
    let claims = stage.coordinator.count(Request::GetJob);
    let beats = stage.coordinator.count(Request::Heartbeat);
    eventually("time passes", || stage.coordinator.count(Request::Heartbeat) > beats + 5).await;
    assert_eq!(stage.coordinator.count(Request::GetJob), claims);
    assert_eq!(stage.worker.status().borrow().running.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_asks_for_more_isolation_is_refused() {
    let stage = Stage::always().await;
    let job = Assignment { min_sandbox: SandboxLevel::L3, ..job("exit 0") };
    stage.coordinator.offer(job.clone());
    assert_eq!(stage.failure_of(&job).await, FailureKind::SandboxUnavailable);
    assert_eq!(stage.sandbox.seen(), []);
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_asks_for_the_internet_is_refused() {
    let stage = Stage::always().await;
    let job = Assignment { network: Network::Internet, ..job("exit 0") };
    stage.coordinator.offer(job.clone());
    assert_eq!(stage.failure_of(&job).await, FailureKind::SandboxUnavailable);
    let message = stage.coordinator.now().reports[0].error_message.clone();
    assert!(message.contains("does not grant"), "{message}");
    assert_eq!(stage.sandbox.seen(), []);
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_knows_its_name_and_gets_its_arguments() {
    let stage = Stage::always().await;
    let job = Assignment {
        attempt: 7,
        argv: ["exit", "3"].map(str::to_owned).to_vec(),
        env: [
            ("LULL_INDEX".to_owned(), "4".to_owned()),
            ("LULL_ATTEMPT".to_owned(), "x".to_owned()),
        ]
        .into(),
        ..job("exit 3")
    };
    stage.coordinator.offer(job.clone());
    assert_eq!(stage.result_of(&job).await, Some(3));
    let launch = stage.sandbox.launches.lock().unwrap()[0].clone();
    assert_eq!(launch.program, Program::Argv(job.argv));
    let expected = [
        ("LULL_ATTEMPT", "7".to_owned()),
        ("LULL_INDEX", "4".to_owned()),
        ("LULL_JOB_ID", job.job_id.to_string()),
    ];
    assert_eq!(launch.env, expected.map(|(name, value)| (name.to_owned(), value)).into());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_is_ended_and_its_output_arrives() {
    let stage = Stage::always().await;
    let job = Assignment { timeout_secs: Some(90), ..job("say begun\nstay") };
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    let began = tokio::time::Instant::now();
    assert_eq!(stage.failure_of(&job).await, FailureKind::TimedOut);
    assert!((89..=91).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(stage.coordinator.output_of(job.key(), Stream::Stdout), "begun");
    stage.saw(&[Seen::Started, Seen::Killed]).await;
    let rows = stage.worker.history(1).await.unwrap().attempts;
    assert_eq!(rows[0].ending, Some(AttemptEnding::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn an_input_is_fetched_once_and_kept() {
    let stage = Stage::always().await;
    let digest = put_zip(&stage.coordinator);
    stage.coordinator.fail_next(Request::Download, Failure::RequestLost);
    for _ in 0..2 {
        let job = Assignment { file_digest: Some(digest), ..job("exit 0") };
        stage.coordinator.offer(job.clone());
        assert_eq!(stage.result_of(&job).await, Some(0));
    }
    assert_eq!(stage.coordinator.count(Request::Download), 2, "one was lost, one arrived");

    let missing = Assignment { file_digest: Some(Digest::of(b"none")), ..job("exit 0") };
    stage.coordinator.offer(missing.clone());
    assert_eq!(stage.failure_of(&missing).await, FailureKind::InputUnavailable);
    stage.nothing_is_left().await;
}

pub(super) fn put_zip(coordinator: &Coordinator) -> Digest {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("a.txt", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"input").unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    let digest = Digest::of(&bytes);
    coordinator.now().files.insert(digest, bytes);
    digest
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_real_job_in_the_real_sandbox_brings_its_files_home() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::default();
    coordinator.now().pin = Some(SpkiPin([7; 32]));
    let mut config = WorkerConfig::new(folder.path().to_owned());
    config.always = true;
    let ground = Ground {
        connector: std::sync::Arc::new(coordinator.clone()),
        machine: Box::new(Pc::default()),
        sandbox: crate::sandbox::default_sandbox().await,
        clock: std::sync::Arc::new(SystemClock),
    };
    let worker = start_on(config, ground).await.unwrap();
    worker.join(&code(7)).await.unwrap();
    let job = Assignment {
        file_digest: Some(put_zip(&coordinator)),
        outputs: vec!["out/*".to_owned()],
        min_sandbox: SandboxLevel::L0,
        env: [("GREETING".to_owned(), "hello".to_owned())].into(),
        ..job("mkdir out\necho $GREETING > out/b.txt\ncat a.txt out/b.txt")
    };
    coordinator.offer(job.clone());
    let done = eventually("the result arrives", || !coordinator.now().results.is_empty());
    tokio::time::timeout(std::time::Duration::from_secs(60), done).await.expect("within a minute");

    let result = coordinator.now().results[0].clone();
    assert_eq!((result.exit_code, result.error_message), (Some(0), None));
    assert_eq!(coordinator.output_of(job.key(), Stream::Stdout), "inputhello\n");
    assert_eq!(result.artifacts[0].name, "outputs.zip");
    let bytes = coordinator.now().files[&result.artifacts[0].digest].clone();
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let text = std::io::read_to_string(zip.by_name("out/b.txt").unwrap()).unwrap();
    assert_eq!(text, "hello\n");
    worker.stop().await;
    assert_eq!(fs::read_dir(folder.path().join("jobs")).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_assignment_starts_nothing() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.offer(job.clone());
    eventually("it was taken", || stage.coordinator.now().jobs.is_empty()).await;
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&job).await, Some(0));
    assert_eq!(stage.sandbox.seen(), [Seen::Started]);
}
