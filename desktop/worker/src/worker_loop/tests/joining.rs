//! Joining a pool, changing it, and being refused.

use super::*;

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
async fn the_coordinator_hears_of_labels_and_of_inputs_at_hand() {
    let stage = Stage::labelled(&["gpu", "blender"]).await;
    let digest = put_zip(&stage.coordinator);
    let job = Assignment { file_digest: Some(digest), ..job("exit 0") };
    stage.coordinator.offer(job.clone());
    assert_eq!(stage.result_of(&job).await, Some(0));
    let stage = stage.power_cut(|_| {}).await;
    stage.connected().await;
    let registered = stage.coordinator.now().registered.clone();
    let first = &registered[0];
    assert_eq!(first.labels, ["gpu", "blender"].map(str::to_owned).into());
    assert_eq!((first.network, first.cached_inputs.len()), (Network::None, 0));
    assert_eq!(registered.last().unwrap().cached_inputs, [digest]);
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
