//! Results that get ready together travel together, and each has its own answer.

use super::*;

/// A worker whose first result is on its way for good, so that the next ones gather; and four jobs for it.
async fn gathering() -> (Stage, Vec<Assignment>) {
    let stage = Stage::set(true, 5).await;
    stage.coordinator.fail_next(Request::SubmitResult, Failure::Hangs);
    stage.coordinator.offer(job("exit 0"));
    eventually("one is on its way", || stage.coordinator.count(Request::SubmitResult) == 1).await;
    let jobs: Vec<Assignment> =
        (1..5).map(|code| job(&format!("say x\nstay\nexit {code}"))).collect();
    for job in &jobs {
        stage.coordinator.offer(job.clone());
    }
    stage.saw(&[Seen::Started; 5]).await;
    (stage, jobs)
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_at_the_same_moment_goes_in_one_request() {
    let (stage, jobs) = gathering().await;
    stage.sandbox.let_go();
    for (code, job) in (1..).zip(&jobs) {
        assert_eq!(stage.result_of(job).await, Some(code));
        assert_eq!(stage.coordinator.output_of(job.key(), Stream::Stdout), "x");
    }
    assert_eq!(stage.coordinator.count(Request::SubmitResults), 1);
    assert_eq!(stage.coordinator.count(Request::SubmitResult), 1);
}

#[tokio::test(start_paused = true)]
async fn each_has_its_own_answer() {
    let (stage, jobs) = gathering().await;
    let kinds = [ProblemKind::LeaseLost, ProblemKind::Invalid, ProblemKind::OffsetMismatch];
    stage.coordinator.now().refuse_once = jobs.iter().map(|job| job.job_id).zip(kinds).collect();
    stage.sandbox.let_go();
    assert_eq!(stage.failure_of(&jobs[1]).await, FailureKind::Internal);
    assert_eq!(stage.result_of(&jobs[2]).await, Some(3), "it is sent again without output");
    assert_eq!(stage.result_of(&jobs[3]).await, Some(4));
    let rest = || stage.files_in("spool") == 1 && stage.files_in("jobs") <= 1;
    eventually("only what hangs is left", rest).await;
    let played = stage.coordinator.now();
    assert_eq!((played.results.len(), played.reports.len()), (2, 1), "the fenced one is dropped");
}

#[tokio::test(start_paused = true)]
async fn lost_requests_and_replies_of_many_lose_and_repeat_nothing() {
    let (stage, jobs) = gathering().await;
    for failure in [Failure::RequestLost, Failure::ReplyLost] {
        stage.coordinator.fail_next(Request::SubmitResults, failure);
    }
    stage.sandbox.let_go();
    for (code, job) in (1..).zip(&jobs) {
        assert_eq!(stage.result_of(job).await, Some(code));
    }
    eventually("only what hangs is left", || stage.files_in("spool") == 1).await;
    let results = stage.coordinator.now().results.clone();
    for result in &results {
        let first = results.iter().find(|other| other.job_id == result.job_id);
        assert_eq!(first, Some(result), "the same again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_together_is_sent_one_by_one() {
    let (stage, jobs) = gathering().await;
    stage.coordinator.fail_next(Request::SubmitResults, Failure::Refused(ProblemKind::TooLarge));
    stage.sandbox.let_go();
    for (code, job) in (1..).zip(&jobs) {
        assert_eq!(stage.result_of(job).await, Some(code));
    }
    assert_eq!(stage.coordinator.count(Request::SubmitResult), 5);
    assert!(stage.coordinator.now().reports.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_result_with_files_to_bring_holds_up_nobody() {
    let stage = Stage::always().await;
    stage.coordinator.fail_next(Request::Upload, Failure::Hangs);
    let with_files = Assignment { outputs: vec!["*.txt".to_owned()], ..job("make a.txt") };
    let without = job("exit 2");
    stage.coordinator.offer(with_files.clone());
    eventually("the upload hangs", || stage.coordinator.count(Request::Upload) == 1).await;
    stage.coordinator.offer(without.clone());
    assert_eq!(stage.result_of(&without).await, Some(2));
    assert_eq!(stage.coordinator.now().results.len(), 1);
}
