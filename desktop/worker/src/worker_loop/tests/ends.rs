//! Leases, networks and processes end, and no job is lost.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_job_without_a_report() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.now().next_heartbeat =
        HeartbeatReply { lost: vec![job.key()], ..HeartbeatReply::default() };
    stage.saw(&[Seen::Started, Seen::Killed]).await;
    stage.nothing_is_left().await;
    assert!(stage.coordinator.now().reports.is_empty());
    let rows = stage.worker.history(1).await.unwrap().attempts;
    assert_eq!(rows[0].ending, Some(AttemptEnding::WorkerLost));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_ends_what_runs_and_takes_nothing_new() {
    let stage = Stage::always().await;
    let (first, second) = (job("stay"), job("exit 2"));
    stage.coordinator.offer(first.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.now().drain = true;
    eventually("the owner sees it", || stage.state().0 == WorkerState::Draining).await;
    let told = || stage.coordinator.now().heartbeats.last().map(|beat| beat.status);
    eventually("the coordinator hears it", || told() == Some(WorkerState::Draining)).await;
    stage.coordinator.offer(second.clone());
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&first).await, Some(0));
    let (claims, beats) =
        (stage.coordinator.count(Request::GetJob), stage.coordinator.count(Request::Heartbeat));
    eventually("time passes", || stage.coordinator.count(Request::Heartbeat) > beats + 3).await;
    assert_eq!(stage.coordinator.count(Request::GetJob), claims);
    assert_eq!(stage.state().0, WorkerState::Draining);

    stage.coordinator.now().drain = false;
    assert_eq!(stage.result_of(&second).await, Some(2));
    eventually("it is ready again", || stage.state().0 == WorkerState::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_name_what_runs_and_keep_the_lease() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    let beats = || stage.coordinator.now().heartbeats.clone();
    eventually("many leases' time passes", || beats().len() > 30).await;
    let last = beats().pop().unwrap();
    assert_eq!((last.running, last.status), (vec![job.key()], WorkerState::Working));
    assert_eq!(stage.sandbox.seen(), [Seen::Started]);
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&job).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_short_absence_of_the_network_costs_nothing() {
    let stage = Stage::always().await;
    let job = job("say a\nstay\nsay b");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.now().away = true;
    let status = stage.worker.status();
    let unreachable = || matches!(status.borrow().connection, Connection::Unreachable { .. });
    eventually("the owner sees it", unreachable).await;
    stage.sandbox.let_go();
    let spooled = || stage.files_in("spool") == 1;
    eventually("the result waits on disk", spooled).await;
    stage.coordinator.now().away = false;
    assert_eq!(stage.result_of(&job).await, Some(0));
    assert_eq!(stage.coordinator.output_of(job.key(), Stream::Stdout), "ab");
    stage.connected().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_ends_the_job() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    let began = tokio::time::Instant::now();
    stage.coordinator.now().away = true;
    stage.saw(&[Seen::Started, Seen::Killed]).await;
    let took = began.elapsed().as_secs();
    assert!((45..=61).contains(&took), "it ran on for {took} s");
    stage.coordinator.now().away = false;
    stage.nothing_is_left().await;
    assert!(stage.coordinator.now().reports.is_empty(), "nothing is reported of a lost lease");
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_back_and_says_goodbye() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    let began = tokio::time::Instant::now();
    stage.worker.stop().await;
    assert!(began.elapsed().as_secs() < 10);
    assert_eq!(stage.failure_of(&job).await, FailureKind::WorkerStopping);
    let goodbye = stage.coordinator.now().heartbeats.pop().unwrap();
    assert_eq!((goodbye.status, goodbye.running), (WorkerState::Offline, Vec::new()));
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_without_a_network_takes_less_than_ten_seconds_and_keeps_the_report() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.now().away = true;
    let began = tokio::time::Instant::now();
    stage.worker.stop().await;
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    let stage = stage.power_cut(|stage| stage.coordinator.now().away = false).await;
    assert_eq!(stage.failure_of(&job).await, FailureKind::WorkerStopping);
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_gives_back_what_was_cut_off() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    let stage = stage.power_cut(|stage| assert_eq!(stage.files_in("jobs"), 1)).await;
    assert_eq!(stage.failure_of(&job).await, FailureKind::WorkerRestarted);
    stage.nothing_is_left().await;
    let rows = stage.worker.history(5).await.unwrap().attempts;
    assert_eq!(rows[0].ending, Some(AttemptEnding::GivenBack));
}

#[tokio::test(start_paused = true)]
async fn a_restart_delivers_what_was_spooled() {
    let stage = Stage::always().await;
    for _ in 0..50 {
        stage.coordinator.fail_next(Request::SubmitResult, Failure::RequestLost);
    }
    let job = job("say kept\nexit 4");
    stage.coordinator.offer(job.clone());
    eventually("it was tried", || stage.coordinator.count(Request::SubmitResult) > 0).await;
    eventually("it is on disk", || stage.files_in("spool") == 1).await;
    let stage = stage
        .power_cut(|stage| {
            assert_eq!(stage.files_in("spool"), 1);
            stage.coordinator.now().failures.clear();
            // As if the power had gone before the folder was cleared away.
            let leftover = stage.folder.path().join("jobs").join(file_stem(job.key()));
            fs::create_dir_all(leftover).unwrap();
        })
        .await;
    assert_eq!(stage.result_of(&job).await, Some(4));
    assert_eq!(stage.coordinator.output_of(job.key(), Stream::Stdout), "kept");
    stage.nothing_is_left().await;
    assert!(stage.coordinator.now().reports.is_empty(), "what ended is not given back");
}

#[tokio::test(start_paused = true)]
async fn a_short_attempt_whose_result_nobody_has_is_given_back() {
    let stage = Stage::always().await;
    stage.coordinator.fail_next(Request::SubmitResult, Failure::Hangs);
    let job = job("exit 4");
    stage.coordinator.offer(job.clone());
    eventually("it is on its way", || stage.coordinator.count(Request::SubmitResult) == 1).await;
    assert_eq!(stage.files_in("spool"), 0, "nothing is written for a coordinator that answers");
    let stage = stage.power_cut(|stage| assert_eq!(stage.files_in("jobs"), 1)).await;
    assert_eq!(stage.failure_of(&job).await, FailureKind::WorkerRestarted);
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_attempt_is_on_disk_before_its_result_goes_out() {
    let stage = Stage::always().await;
    stage.coordinator.fail_next(Request::SubmitResult, Failure::Hangs);
    let job = job("stay\nexit 4");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    let beats = stage.coordinator.count(Request::Heartbeat);
    eventually("time passes", || stage.coordinator.count(Request::Heartbeat) > beats).await;
    stage.sandbox.let_go();
    eventually("it is on its way", || stage.coordinator.count(Request::SubmitResult) == 1).await;
    let stage = stage.power_cut(|stage| assert_eq!(stage.files_in("spool"), 1)).await;
    assert_eq!(stage.result_of(&job).await, Some(4));
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_attempt_ends_only_that_attempt() {
    let stage = Stage::always().await;
    let (bad, good) = (job("panic"), job("exit 0"));
    stage.coordinator.offer(bad.clone());
    assert_eq!(stage.failure_of(&bad).await, FailureKind::Internal);
    stage.coordinator.offer(good.clone());
    assert_eq!(stage.result_of(&good).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_data_folder_has_one_worker() {
    let stage = Stage::always().await;
    let second = begin(&stage.folder, &stage.coordinator, &stage.sandbox, &stage.pc, true, 1).await;
    assert!(matches!(second, Err(StartError::AlreadyRunning { .. })), "{second:?}");
    stage.worker.stop().await;
    let third = begin(&stage.folder, &stage.coordinator, &stage.sandbox, &stage.pc, true, 1).await;
    assert!(third.is_ok(), "{third:?}");
}
