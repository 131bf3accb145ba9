//! `lull-bench torture`: runs the torture and prints what was seen.

use lull_bench::torture::{self, Outcome, Plan};

use crate::figures::{Samples, line};

/// How many faults are printed.
const SHOWN: usize = 20;

/// Fails when there are faults, or, where they are expected, when there are none.
pub(crate) async fn run(plan: &Plan, expect_faults: bool) -> anyhow::Result<()> {
    let outcome = torture::run(plan).await?;
    print(plan, &outcome);
    match (outcome.faults.is_empty(), expect_faults) {
        (true, false) | (false, true) => Ok(()),
        (false, false) => anyhow::bail!("{} faults", outcome.faults.len()),
        (true, true) => anyhow::bail!("no fault was found, though there is one to find"),
    }
}

fn print(plan: &Plan, outcome: &Outcome) {
    let done = format!(
        "{} kills of the coordinator, {} of workers, {} stops, seed {}",
        plan.coordinator_kills, plan.worker_kills, plan.stops, plan.seed
    );
    line("survived", &done);
    line("submissions acknowledged", &outcome.acknowledged.to_string());
    line("attempts that began", &outcome.attempts.to_string());
    line("late deliveries refused", &outcome.fenced.to_string());
    let mut ready = Samples::default();
    for took in &outcome.ready_after {
        ready.push(*took);
    }
    ready.print("coordinator ready after a kill");
    line("took", &format!("{:.1} s", outcome.took.as_secs_f64()));
    line("faults", &outcome.faults.len().to_string());
    for fault in outcome.faults.iter().take(SHOWN) {
        line("", &fault.to_string());
    }
}
