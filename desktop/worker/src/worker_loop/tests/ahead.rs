//! Short jobs are claimed ahead of free slots, and given back when they cannot have their turn at once.

use super::*;

/// A worker with one slot that has seen many short jobs and knows of more: `long` occupies the slot, and the others
/// that are offered now wait here.
async fn waiting_behind(stage: &Stage, others: &[Assignment]) -> Assignment {
    let long = job("stay");
    let short = (0..20).map(|_| job("exit 0"));
    let all: Vec<Assignment> = short.chain([long.clone()]).chain(others.iter().cloned()).collect();
    stage.coordinator.offer_many(all.into_iter());
    eventually("nothing is left to claim", || stage.coordinator.now().jobs.is_empty()).await;
    long
}

#[tokio::test(start_paused = true)]
async fn short_jobs_cost_few_claims_and_run_once_each() {
    let stage = Stage::set(true, 2).await;
    let jobs: Vec<Assignment> = (0..200).map(|_| job("exit 0")).collect();
    stage.coordinator.offer_many(jobs.clone().into_iter());
    for job in &jobs {
        assert_eq!(stage.result_of(job).await, Some(0));
    }
    stage.nothing_is_left().await;
    assert_eq!(stage.sandbox.seen().len(), jobs.len());
    assert_eq!(stage.coordinator.now().results.len(), jobs.len());
    let claims = stage.coordinator.now().claims.clone();
    assert!(claims.len() <= jobs.len() / 3, "{} claims", claims.len());
    assert!(claims.iter().all(|claim| claim.max <= Some(10)), "{claims:?}");
    let asks = || stage.coordinator.now().claims.last().map(|claim| (claim.wait > 0, claim.max));
    eventually("it waits for what it has room for", || asks() == Some((true, Some(2)))).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_have_its_turn_is_given_back_while_the_slot_is_taken() {
    let stage = Stage::set(true, 1).await;
    let behind = [job("exit 1"), job("exit 2")];
    let long = waiting_behind(&stage, &behind).await;
    // The long one goes on for as long as nobody lets it go, so both come back while it runs.
    for job in &behind {
        assert_eq!(stage.failure_of(job).await, FailureKind::WorkerStopping);
    }
    stage.sandbox.let_go();
    assert_eq!(stage.result_of(&long).await, Some(0));
    stage.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_given_back_when_the_owner_pauses_or_the_worker_ends() {
    let stage = Stage::set(true, 1).await;
    let behind = [job("exit 1"), job("exit 2")];
    waiting_behind(&stage, &behind).await;
    stage.worker.set_paused(true);
    for job in &behind {
        assert_eq!(stage.failure_of(job).await, FailureKind::OwnerReturned);
    }

    let stage = Stage::set(true, 1).await;
    waiting_behind(&stage, &behind).await;
    stage.worker.stop().await;
    for job in &behind {
        assert_eq!(stage.failure_of(job).await, FailureKind::WorkerStopping);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_when_the_power_went_is_given_back() {
    let stage = Stage::set(true, 1).await;
    let behind = [job("exit 1")];
    let long = waiting_behind(&stage, &behind).await;
    eventually("only two have a folder left", || stage.files_in("jobs") == 2).await;
    let stage = stage.power_cut(|stage| assert_eq!(stage.files_in("jobs"), 2)).await;
    for job in [&long, &behind[0]] {
        assert_eq!(stage.failure_of(job).await, FailureKind::WorkerRestarted);
    }
    stage.nothing_is_left().await;
}
