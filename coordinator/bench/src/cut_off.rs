//! `lull-bench power-cut`: cuts the power and prints what was left.

use lull_bench::power_cut::{self, Plan};

use crate::figures::line;

/// How many faults are printed.
const SHOWN: usize = 20;

/// Fails when something was lost, or, where that is expected, when nothing was.
pub(crate) async fn run(plan: &Plan, expect_faults: bool) -> anyhow::Result<()> {
    let outcome = power_cut::run(plan).await?;
    line("power cuts", &format!("{}, seed {}", plan.cuts, plan.seed));
    line("submissions acknowledged and there", &outcome.submissions.to_string());
    line("results acknowledged and there", &outcome.results.to_string());
    line("files acknowledged and whole", &outcome.files.to_string());
    line("took", &format!("{:.1} s", outcome.took.as_secs_f64()));
    line("faults", &outcome.faults.len().to_string());
    for fault in outcome.faults.iter().take(SHOWN) {
        line("", fault);
    }
    match (outcome.faults.is_empty(), expect_faults) {
        (true, false) | (false, true) => Ok(()),
        (false, false) => anyhow::bail!("something acknowledged was lost"),
        (true, true) => anyhow::bail!("nothing was lost, though it should have been"),
    }
}
