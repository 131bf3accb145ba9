//! What the owner sees of the worker.

use lull_shared::{
    local::{Connection, LocalAttempt, LocalStatus},
    workers::{RegisterWorker, WorkerState},
};

use super::{Phase, WorkerLoop};
use crate::{attempt::Tools, identity::Identity};

/// What is seen before the loop's first look around.
pub(super) fn initial(
    identity: &Identity,
    about: &RegisterWorker,
    slots: u32,
    tools: &Tools,
) -> LocalStatus {
    LocalStatus {
        worker_id: identity.worker_id,
        hostname: about.hostname.clone(),
        connection: Connection::NotJoined,
        state: WorkerState::Offline,
        reason: None,
        slots,
        running: Vec::new(),
        paused: identity.paused,
        idle_secs: None,
        others_cpu_percent: None,
        on_battery: None,
        sandbox_level: tools.sandbox.level(),
        sandbox_detail: tools.sandbox.detail().to_owned(),
        version: about.version.clone(),
    }
}

impl WorkerLoop {
    /// Shows the owner what has changed, if anything.
    pub(super) fn publish(&self) {
        let status = self.local_status();
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            if changed {
                *shown = status;
            }
            changed
        });
    }

    fn local_status(&self) -> LocalStatus {
        let mut running: Vec<LocalAttempt> = self
            .held
            .values()
            .filter(|held| held.phase == Phase::Running)
            .filter_map(|held| held.local.clone())
            .collect();
        running.sort_by_key(|attempt| (attempt.started_at, attempt.job_id));
        let joined = !matches!(self.pool.connection, Connection::NotJoined);
        LocalStatus {
            worker_id: self.identity.worker_id,
            hostname: self.about.hostname.clone(),
            connection: self.pool.connection.clone(),
            state: if joined { self.state(!running.is_empty()) } else { WorkerState::Offline },
            reason: self.decision.reason(),
            slots: self.limits.slots,
            running,
            paused: self.identity.paused,
            idle_secs: self.sample.idle_for.map(|idle| coarse_secs(idle.as_secs())),
            others_cpu_percent: self.sample.others_cpu.map(|percent| percent / 5 * 5),
            on_battery: self.sample.on_battery,
            sandbox_level: self.tools.sandbox.level(),
            sandbox_detail: self.tools.sandbox.detail().to_owned(),
            version: self.about.version.clone(),
        }
    }
}

/// Whole minutes after the first, so that a window is not redrawn every second of a quiet night.
const fn coarse_secs(secs: u64) -> u64 {
    if secs < 60 { secs / 5 * 5 } else { secs / 60 * 60 }
}
