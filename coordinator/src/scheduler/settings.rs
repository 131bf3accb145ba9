//! What the scheduler is told once, at the start, and the limits it sets itself.

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

/// The most jobs for which one pass of the reaper wakes workers, for each class of requirements.
pub(super) const WAKES_MAX: u32 = 256;
/// The most leases that one transaction of the reaper ends.
pub(super) const EXPIRED_MAX: u32 = 256;
/// The most that falls due by the clock which one transaction of the reaper does.
pub(super) const DUE_MAX: u32 = 256;

/// A token's last use is noted this exactly.
pub(super) const USED_EVERY: Duration = Duration::from_secs(60);
