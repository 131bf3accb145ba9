//! The proving ground at a small size: no fault where there is none, and each fault that is built in is found.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::{env, path::PathBuf, time::Duration};

use lull_bench::torture::{self, Fault, Plan, faulty_coordinator};

fn a_plan() -> Plan {
    Plan {
        jobs: 150,
        workers: 3,
        coordinator_kills: 3,
        worker_kills: 6,
        stops: 1,
        sleepers: 2,
        lease: Duration::from_secs(5),
        seed: 1,
        coordinator: None,
    }
}

/// A coordinator with a fault built in, by `scripts/fault-builds.sh`.
fn with_fault(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap();
    faulty_coordinator(&target.join("faults").join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tortured_jobs_are_neither_lost_nor_recorded_twice() {
    let outcome = torture::run(&a_plan()).await.unwrap();
    assert_eq!(outcome.faults, []);
    assert_eq!(outcome.acknowledged, 150);
    assert_eq!(outcome.ready_after.len(), 3);
    assert!(outcome.fenced >= 2, "a late delivery was tried and refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn torture_finds_a_missing_fence() {
    let coordinator = Some(with_fault("unfenced"));
    let plan = Plan { coordinator_kills: 0, worker_kills: 0, stops: 0, coordinator, ..a_plan() };
    let outcome = torture::run(&plan).await.unwrap();
    let found = outcome.faults.iter().any(|fault| matches!(fault, Fault::Unfenced { .. }));
    assert!(found, "{:?}", outcome.faults);
}

#[cfg(target_os = "linux")]
mod power {
    use lull_bench::power_cut::{self, Plan};

    use super::with_fault;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_acknowledged_survives_power_cuts() {
        let outcome = power_cut::run(&Plan { cuts: 3, seed: 1, coordinator: None }).await.unwrap();
        assert_eq!(outcome.faults, Vec::<String>::new());
        assert!(outcome.submissions > 0 && outcome.results > 0 && outcome.files > 0, "{outcome:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_power_cut_finds_a_coordinator_that_does_not_wait_for_the_disk() {
        let coordinator = Some(with_fault("unsynced"));
        let outcome = power_cut::run(&Plan { cuts: 5, seed: 1, coordinator }).await.unwrap();
        assert!(!outcome.faults.is_empty(), "{outcome:?}");
    }
}
