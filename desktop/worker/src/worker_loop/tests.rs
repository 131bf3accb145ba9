//! The whole worker against a played coordinator, in a sandbox without processes, on a clock that jumps.

use std::{fs, io::Write as _};

use lull_shared::{
    credentials::{JoinCode, SpkiPin},
    ids::Digest,
    jobs::{Assignment, AttemptEnding, FailureKind},
    local::Connection,
    output::Stream,
    problem::ProblemKind,
    time::SystemClock,
    workers::{HeartbeatReply, SandboxLevel, SuspendReason, WorkerState},
};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::start::{Ground, start_on};
use crate::{
    JoinError, StartError, WorkerConfig, WorkerHandle,
    spool::file_stem,
    testing::{Coordinator, Failure, FakeSandbox, Pc, Request, Seen, eventually, job},
};

/// A worker of a pool, and everything around it.
struct Stage {
    folder: TempDir,
    coordinator: Coordinator,
    sandbox: FakeSandbox,
    pc: Pc,
    worker: WorkerHandle,
}

impl Stage {
    /// A worker that has joined and minds nobody.
    async fn always() -> Self {
        Self::set(true, 2).await
    }

    /// A worker on a PC with an owner who has been away for an hour.
    async fn with_owner() -> Self {
        Self::set(false, 2).await
    }

    async fn set(always: bool, slots: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::default();
        coordinator.now().pin = Some(SpkiPin([7; 32]));
        let (sandbox, pc) = (FakeSandbox::default(), Pc::default());
        pc.idle_for(3600);
        let worker = begin(&folder, &coordinator, &sandbox, &pc, always, slots).await.unwrap();
        worker.join(&code(7)).await.unwrap();
        let stage = Self { folder, coordinator, sandbox, pc, worker };
        stage.connected().await;
        stage
    }

    async fn connected(&self) {
        let status = self.worker.status();
        let connected = || matches!(status.borrow().connection, Connection::Connected { .. });
        eventually("the worker is connected", connected).await;
    }

    /// Ends this worker as a power cut would, without a word to anybody, and starts it again.
    async fn power_cut(self, meanwhile: impl FnOnce(&Self)) -> Self {
        // The task is dropped with everything it owns; only the disk remains.
        self.worker.break_off().await;
        meanwhile(&self);
        self.coordinator.now().requests.clear();
        let sandbox = FakeSandbox::default();
        let worker = begin(&self.folder, &self.coordinator, &sandbox, &self.pc, true, 2).await;
        Self { worker: worker.unwrap(), sandbox, ..self }
    }

    async fn result_of(&self, job: &Assignment) -> Option<i32> {
        let find = || {
            let played = self.coordinator.now();
            played.results.iter().find(|result| result.job_id == job.job_id).cloned()
        };
        eventually("the result arrives", || find().is_some()).await;
        find().unwrap().exit_code
    }

    async fn failure_of(&self, job: &Assignment) -> FailureKind {
        let find = || {
            let played = self.coordinator.now();
            played.reports.iter().find(|report| report.job_id == job.job_id).map(|r| r.kind)
        };
        eventually("the failure is reported", || find().is_some()).await;
        find().unwrap()
    }

    async fn saw(&self, seen: &[Seen]) {
        eventually(&format!("the sandbox saw {seen:?}"), || self.sandbox.seen() == seen).await;
    }

    fn state(&self) -> (WorkerState, Option<SuspendReason>) {
        let status = self.worker.status();
        let status = status.borrow();
        (status.state, status.reason)
    }

    fn files_in(&self, folder: &str) -> usize {
        fs::read_dir(self.folder.path().join(folder)).unwrap().count()
    }

    async fn nothing_is_left(&self) {
        let empty = || self.files_in("spool") == 0 && self.files_in("jobs") == 0;
        eventually("spool and jobs are empty", empty).await;
    }
}

async fn begin(
    folder: &TempDir,
    coordinator: &Coordinator,
    sandbox: &FakeSandbox,
    pc: &Pc,
    always: bool,
    slots: u32,
) -> Result<WorkerHandle, StartError> {
    let mut config = WorkerConfig::new(folder.path().to_owned());
    (config.always, config.slots) = (always, Some(slots));
    let ground = Ground {
        connector: std::sync::Arc::new(coordinator.clone()),
        machine: Box::new(pc.clone()),
        sandbox: std::sync::Arc::new(sandbox.clone()),
        clock: std::sync::Arc::new(SystemClock),
    };
    start_on(config, ground).await
}

fn code(pin: u8) -> String {
    let code = JoinCode::generate(SpkiPin([pin; 32]), vec!["played:7700".to_owned()]);
    code.to_text().expose_secret().to_owned()
}

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
async fn a_lost_lease_ends_the_job_without_a_report() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.now().next_heartbeat =
        HeartbeatReply { lost: vec![job.key()], cancel: Vec::new() };
    stage.saw(&[Seen::Started, Seen::Killed]).await;
    stage.nothing_is_left().await;
    assert!(stage.coordinator.now().reports.is_empty());
    let rows = stage.worker.history(1).await.unwrap().attempts;
    assert_eq!(rows[0].ending, Some(AttemptEnding::WorkerLost));
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
async fn the_owner_s_return_freezes_and_their_leaving_resumes() {
    let stage = Stage::with_owner().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;

    let returned = tokio::time::Instant::now();
    stage.pc.idle_for(0);
    stage.saw(&[Seen::Started, Seen::Suspended]).await;
    assert!(returned.elapsed().as_millis() < 1000, "{:?}", returned.elapsed());
    let owner_active = (WorkerState::Suspended, Some(SuspendReason::OwnerActive));
    eventually("the owner sees why", || stage.state() == owner_active).await;
    let told = || stage.coordinator.now().heartbeats.last().and_then(|beat| beat.reason);
    eventually("the coordinator hears it", || told() == Some(SuspendReason::OwnerActive)).await;

    stage.pc.idle_for(61);
    stage.saw(&[Seen::Started, Seen::Suspended, Seen::Resumed]).await;
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&job).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_owner_who_stays_sends_the_job_elsewhere() {
    let stage = Stage::with_owner().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    let returned = tokio::time::Instant::now();
    stage.pc.idle_for(2);
    assert_eq!(stage.failure_of(&job).await, FailureKind::OwnerReturned);
    let after = returned.elapsed().as_secs();
    assert!((600..=603).contains(&after), "after {after} s");
    stage.nothing_is_left().await;
    let claims = stage.coordinator.count(Request::GetJob);
    stage.pc.idle_for(299);
    let beats = stage.coordinator.count(Request::Heartbeat);
    eventually("time passes", || stage.coordinator.count(Request::Heartbeat) > beats + 3).await;
    assert_eq!(stage.coordinator.count(Request::GetJob), claims, "nothing new before five minutes");
    stage.pc.idle_for(300);
    eventually("it asks again", || stage.coordinator.count(Request::GetJob) > claims).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_counts_on_a_server_too_and_outlives_a_restart() {
    let stage = Stage::always().await;
    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    stage.worker.set_paused(true);
    stage.saw(&[Seen::Started, Seen::Suspended]).await;
    assert_eq!(stage.failure_of(&job).await, FailureKind::OwnerReturned);

    let stage = stage.power_cut(|_| {}).await;
    let paused = (WorkerState::Suspended, Some(SuspendReason::PausedByOwner));
    eventually("it is still paused", || stage.state() == paused).await;
    stage.worker.set_paused(false);
    eventually("it works again", || stage.state().0 == WorkerState::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_meets_a_pause_is_given_back_at_once() {
    let stage = Stage::always().await;
    let job = job("exit 0");
    eventually("it asks", || !stage.coordinator.now().claims.is_empty()).await;
    // The reply is on its way when the owner presses the button: the loop hears of both in one moment.
    stage.coordinator.offer(job.clone());
    stage.worker.set_paused(true);
    assert_eq!(stage.failure_of(&job).await, FailureKind::OwnerReturned);
    let paused = (WorkerState::Suspended, Some(SuspendReason::PausedByOwner));
    assert_eq!(stage.state(), paused);
    assert_eq!(stage.sandbox.seen(), []);
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

fn put_zip(coordinator: &Coordinator) -> Digest {
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

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_does_not_know_this_pc_is_shown_as_a_refusal() {
    let stage = Stage::always().await;
    for _ in 0..10_000 {
        stage
            .coordinator
            .fail_next(Request::Heartbeat, Failure::Refused(ProblemKind::Unauthenticated));
    }
    let status = stage.worker.status();
    let refused = || matches!(status.borrow().connection, Connection::Refused { .. });
    eventually("the owner sees it", refused).await;
    stage.coordinator.now().failures.clear();
    stage.connected().await;
}

#[tokio::test(start_paused = true)]
async fn joining_fails_in_words_a_person_understands() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::default();
    coordinator.now().pin = Some(SpkiPin([7; 32]));
    let (sandbox, pc) = (FakeSandbox::default(), Pc::default());
    let worker = begin(&folder, &coordinator, &sandbox, &pc, true, 1).await.unwrap();
    assert_eq!(worker.status().borrow().connection, Connection::NotJoined);
    assert_eq!(worker.status().borrow().state, WorkerState::Offline);

    let error = worker.join("lull1.nonsense").await.unwrap_err();
    assert!(matches!(error, JoinError::Code(_)), "{error}");

    let error = worker.join(&code(8)).await.unwrap_err();
    assert!(matches!(error, JoinError::WrongCoordinator { .. }), "{error}");
    assert!(coordinator.now().bearers.is_empty(), "the secret stays here");
    assert_eq!(error.to_problem().kind, ProblemKind::JoinRefused);

    coordinator.fail_next(Request::Register, Failure::Refused(ProblemKind::JoinRefused));
    let error = worker.join(&code(7)).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("ask for a new one"), "{error}");

    coordinator.now().away = true;
    let error = worker.join(&code(7)).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("connection reset"), "{error}");
    assert!(worker.membership().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_join_spends_one_registration() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::default();
    coordinator.now().pin = Some(SpkiPin([7; 32]));
    coordinator.fail_next(Request::Register, Failure::ReplyLost);
    let (sandbox, pc) = (FakeSandbox::default(), Pc::default());
    let worker = begin(&folder, &coordinator, &sandbox, &pc, true, 1).await.unwrap();
    worker.join(&code(7)).await.unwrap();
    let played = coordinator.now();
    assert_eq!(played.registered[0], played.registered[1], "the same again");
    assert!(played.registered[0].worker_token.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pc_changes_pools_and_keeps_its_token_within_one() {
    let stage = Stage::always().await;
    let token_of = |stage: &Stage| {
        let text = fs::read_to_string(stage.folder.path().join("worker.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        (json["workerId"].clone(), json["coordinator"]["token"].clone())
    };
    let first = token_of(&stage);
    stage.worker.join(&code(7)).await.unwrap();
    assert_eq!(token_of(&stage), first);

    let job = job("stay");
    stage.coordinator.offer(job.clone());
    stage.saw(&[Seen::Started]).await;
    stage.coordinator.now().pin = Some(SpkiPin([8; 32]));
    stage.worker.join(&code(8)).await.unwrap();
    assert_eq!(stage.failure_of(&job).await, FailureKind::WorkerStopping);
    let second = token_of(&stage);
    assert_eq!(second.0, first.0, "the id is kept");
    assert_ne!(second.1, first.1, "no other pool sees the token");
    assert!(stage.worker.membership().unwrap().is_of(&code(8).into()));

    // The first pool knows this PC by the token that is gone.
    stage.coordinator.fail_next(Request::Register, Failure::Refused(ProblemKind::Conflict));
    stage.coordinator.now().pin = Some(SpkiPin([7; 32]));
    stage.worker.join(&code(7)).await.unwrap();
    assert_ne!(token_of(&stage).0, first.0, "it comes in as a new one");
    stage.connected().await;
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn the_token_is_for_this_account_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::always().await;
    let mode = |name: &str| {
        fs::metadata(stage.folder.path().join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("worker.json"), 0o600);
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
