//! What the scheduler is told once, at the start.

use std::time::Duration;

/// The times and limits the scheduler goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a lease lasts without a renewal.
    pub lease: Duration,
    /// How often a worker is to send a heartbeat.
    pub heartbeat: Duration,
    /// How many jobs of one user may wait.
    pub waiting_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            heartbeat: Duration::from_secs(10),
            waiting_max: u64::MAX,
        }
    }
}
