//! The loop that ends leases which ran out, marks silent workers, and makes good lost wake-ups.

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::scheduler::Scheduler;

/// How often the reaper looks unless told.
pub const EVERY: Duration = Duration::from_secs(1);

/// Reaps until `shutdown` is cancelled. A pass that fails is logged and tried again with the next one.
pub async fn run(scheduler: Arc<Scheduler>, every: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        match scheduler.reap().await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(error = format!("{error:#}"), "could not reap leases");
                }
                failing = true;
            }
        }
    }
}
