//! Why a job waits, for pools of every kind.

use lull_shared::{
    ids::JobId,
    jobs::{Job, LeaseKey},
    workers::SandboxLevel,
};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn a_job() -> Job {
    serde_json::from_value(serde_json::json!({
        "jobId": JobId::generate(), "status": "pending", "name": "render", "command": "make",
        "createdAt": 0, "attempt": 0, "submittedBy": "ann",
    }))
    .unwrap()
}

fn pc(hostname: &str, change: impl FnOnce(&mut Worker)) -> Worker {
    let mut worker: Worker = serde_json::from_value(serde_json::json!({
        "workerId": WorkerId::generate(), "hostname": hostname, "os": "linux", "arch": "x86_64",
        "cpuCount": 8, "memoryBytes": 8_u64 << 30, "version": "0.1.0", "status": "ready",
        "lastHeartbeat": 0, "registeredAt": 0, "slots": 1, "sandboxLevel": "l2",
    }))
    .unwrap();
    change(&mut worker);
    worker
}

fn busy(worker: &mut Worker) {
    worker.running = vec![LeaseKey { job_id: JobId::generate(), attempt: 1 }];
}

fn facts(workers: Vec<Worker>) -> WaitFacts {
    WaitFacts {
        job: a_job(),
        requirements: Requirements::default(),
        ready: true,
        workers,
        failed_on: Vec::new(),
        own_ahead: 0,
        higher_priority: 0,
        turn: (0, 1),
        others: Vec::new(),
        last_turn: 0,
        expected_free: Vec::new(),
    }
}

#[track_caller]
fn check(facts: &WaitFacts, reason: WaitReason, sentences: &[&str]) {
    let explanation = explain(facts, NOW);
    assert_eq!(explanation.reason, Some(reason), "{explanation:?}");
    assert_eq!(explanation.sentences, sentences);
}

#[test]
fn an_empty_pool_says_what_to_do() {
    check(
        &facts(Vec::new()),
        WaitReason::NoneFits,
        &["No PC has joined the pool yet. Let one join with a join code."],
    );
}

#[test]
fn each_state_of_the_pool_is_counted() {
    let at_work = |worker: &mut Worker| worker.status = WorkerState::Suspended;
    let mut facts = facts(vec![
        pc("a", busy),
        pc("b", at_work),
        pc("c", at_work),
        pc("d", |worker| worker.status = WorkerState::Offline),
        pc("e", |worker| worker.draining = true),
        pc("f", |worker| worker.sick_since = Some(NOW)),
        pc("g", |worker| worker.memory_bytes = 64 << 30),
    ]);
    facts.expected_free = vec![(facts.workers[0].worker_id, NOW + Duration::from_secs(240))];
    check(
        &facts,
        WaitReason::Starting,
        &["7 of 7 PCs can run it; of these, 1 with a free slot, \
           1 busy (a is expected to be free in about 4 min), 2 with the owner at work, \
           1 switched off or out of reach, 1 draining and \
           1 set aside because everybody's jobs fail there."],
    );
    facts.requirements.min_memory_bytes = 16 << 30;
    check(
        &facts,
        WaitReason::Starting,
        &["It needs 16 GiB of memory: 1 of 7 PCs can run it; of these, 1 with a free slot."],
    );
}

#[test]
fn what_no_pc_has_is_named() {
    let mut facts = facts(vec![pc("a", |_| {}), pc("b", |_| {})]);
    facts.requirements.labels = ["maya".to_owned()].into();
    facts.requirements.min_cpus = 4;
    check(&facts, WaitReason::NoneFits, &["It needs label maya: none of 2 PCs has that."]);
}

#[test]
fn what_no_pc_has_together_is_counted_one_by_one() {
    let mut facts = facts(vec![
        pc("a", |worker| worker.labels = ["maya".to_owned()].into()),
        pc("b", |worker| worker.memory_bytes = 64 << 30),
    ]);
    facts.requirements.labels = ["maya".to_owned()].into();
    facts.requirements.min_memory_bytes = 32 << 30;
    check(
        &facts,
        WaitReason::NoneFits,
        &["No PC has all it needs together: 32 GiB of memory (1 of 2), label maya (1 of 2) \
           and isolation L2 (2 of 2)."],
    );
}

#[test]
fn owners_at_work_and_busy_pcs_are_different_reasons() {
    let mut at_work = facts(vec![pc("a", |worker| worker.status = WorkerState::Suspended)]);
    check(
        &at_work,
        WaitReason::NoneAvailable,
        &["the one PC of the pool can run it; of these, 1 with the owner at work."],
    );
    at_work.workers = vec![pc("a", busy)];
    check(&at_work, WaitReason::AllBusy, &["the one PC of the pool can run it; of these, 1 busy."]);
}

#[test]
fn what_comes_first_is_counted_by_turns() {
    let mut facts = facts(vec![pc("a", busy)]);
    facts.own_ahead = 9;
    facts.higher_priority = 2;
    // One other user has many, one has few; each gets nine turns or so before the tenth of this one.
    facts.others = vec![(0, 1, 50_000), (0, 1, 3)];
    let explanation = explain(&facts, NOW);
    assert_eq!(explanation.ahead, Some(Ahead { own: 9, others: 2 + 9 + 3 }));
    assert_eq!(explanation.sentences[1], "9 jobs of yours and 14 jobs of others come first.");
}

#[test]
fn a_single_job_waits_for_at_most_one_of_a_user_with_many() {
    let mut facts = facts(vec![pc("a", busy)]);
    facts.turn = (10 * TURN, 1);
    facts.last_turn = 10 * TURN;
    facts.others = vec![(10 * TURN, 1, 50_000)];
    assert!(explain(&facts, NOW).ahead.unwrap().others <= 1);
}

#[test]
fn what_a_person_or_a_rule_holds_back_is_said_first() {
    let mut facts = facts(vec![pc("a", |_| {})]);
    facts.ready = false;
    facts.job.held = true;
    check(&facts, WaitReason::Held, &["It is held. Release it to let it run."]);
    facts.job.held = false;
    facts.job.blocked_by = 2;
    check(&facts, WaitReason::Blocked, &["It waits for 2 jobs to complete."]);
    facts.job.blocked_by = 0;
    facts.job.not_before = Some(NOW + Duration::from_secs(8));
    facts.job.error_message = Some("line 1 ended with exit code 3".to_owned());
    facts.failed_on = vec![facts.workers[0].worker_id];
    check(
        &facts,
        WaitReason::Backoff,
        &[
            "It is tried again in 8 s: line 1 ended with exit code 3.",
            "It failed on 1 PC before, which gets it again only when no other can.",
        ],
    );
}

#[test]
fn a_job_that_does_not_wait_says_so() {
    let mut facts = facts(vec![pc("a", |_| {})]);
    facts.ready = false;
    facts.job.status = JobState::Running;
    facts.job.hostname = Some("a".to_owned());
    let running = explain(&facts, NOW);
    assert_eq!((running.reason, running.sentences), (None, vec!["It runs on a.".to_owned()]));
    facts.job.status = JobState::Failed;
    facts.job.error_message = Some("no PC could run it".to_owned());
    assert_eq!(explain(&facts, NOW).sentences, ["It failed: no PC could run it."]);
}

#[test]
fn a_sandbox_that_nobody_has_is_named() {
    let mut facts = facts(vec![pc("a", |worker| worker.sandbox_level = SandboxLevel::L0)]);
    facts.requirements.min_sandbox = SandboxLevel::L2;
    check(&facts, WaitReason::NoneFits, &["It needs isolation L2: none of 1 PC has that."]);
}
