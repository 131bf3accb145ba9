//! The worker gives way to its PC's owner.

use super::*;

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
async fn a_job_that_is_to_move_does_so_at_once() {
    let stage = Stage::with_owner().await;
    let moving = Assignment { on_owner_return: OnOwnerReturn::Move, ..job("stay") };
    let pausing = job("stay");
    stage.coordinator.offer(moving.clone());
    stage.coordinator.offer(pausing.clone());
    stage.saw(&[Seen::Started, Seen::Started]).await;
    let returned = tokio::time::Instant::now();
    stage.pc.idle_for(0);
    assert_eq!(stage.failure_of(&moving).await, FailureKind::OwnerReturned);
    assert!(returned.elapsed().as_millis() < 1000, "{:?}", returned.elapsed());
    let seen = || stage.sandbox.seen().split_off(2);
    let both = || seen().contains(&Seen::Killed) && seen().contains(&Seen::Suspended);
    eventually("one is killed and the other stands still", both).await;
    stage.pc.idle_for(61);
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&pausing).await, Some(0));
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
