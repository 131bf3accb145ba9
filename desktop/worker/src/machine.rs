//! What this PC is, and how it is being used.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use lull_shared::{
    ids::WorkerId,
    jobs::Network,
    workers::{RegisterWorker, SandboxLevel},
};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

mod battery;
mod own_cpu;

/// How much the newest measurement of the processor counts: a spike of a second is no use yet, two seconds are.
const NEWEST_SHARE: f64 = 0.4;

/// How this PC is being used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Time since the last input; absent when nobody can tell.
    pub idle_for: Option<Duration>,
    /// Share of the processor that other programs use, 0 to 100; absent until it was measured.
    pub others_cpu: Option<u8>,
    /// Whether the PC runs on its battery; absent when it has none or nobody can tell.
    pub on_battery: Option<bool>,
}

/// Tells how the PC is being used.
pub trait Machine: Send {
    /// Looks once. May take some milliseconds. `working` says whether attempts run here, whose own use of the
    /// processor is to be left out.
    fn sample(&mut self, working: bool) -> Sample;
}

/// The PC this program runs on.
#[derive(Debug)]
pub struct ThisPc {
    /// None where the system does not let itself be asked.
    system: Option<System>,
    processors: f64,
    own: Option<(Instant, Duration)>,
    others: Option<f64>,
    measured: bool,
}

impl Default for ThisPc {
    fn default() -> Self {
        Self {
            system: System::new().ok(),
            processors: f64::from(processors()),
            own: None,
            others: None,
            measured: false,
        }
    }
}

impl Machine for ThisPc {
    fn sample(&mut self, working: bool) -> Sample {
        Sample {
            idle_for: idle_for(),
            others_cpu: self.others_cpu(working),
            on_battery: battery::on_battery(),
        }
    }
}

impl ThisPc {
    fn others_cpu(&mut self, working: bool) -> Option<u8> {
        let system = self.system.as_mut()?;
        system.refresh_cpu_usage();
        let all = f64::from(system.global_cpu_usage());
        // The first reading has nothing to compare with.
        let first = !std::mem::replace(&mut self.measured, true);
        let own = self.own_percent(working);
        if let (false, Some(own)) = (first, own) {
            let now = (all - own).clamp(0.0, 100.0);
            self.others =
                Some(self.others.map_or(now, |before| before + NEWEST_SHARE * (now - before)));
        }
        self.others.map(to_percent)
    }

    /// What the attempts used since the last look; absent when there is nothing to compare with.
    fn own_percent(&mut self, working: bool) -> Option<f64> {
        if !working {
            self.own = None;
            return Some(0.0);
        }
        let now = (Instant::now(), own_cpu::time_of_own_tree(self.system.as_mut()?));
        let (since, before) = self.own.replace(now)?;
        let used = now.1.saturating_sub(before).as_secs_f64();
        let passed = now.0.duration_since(since).as_secs_f64().max(0.001);
        Some(100.0 * used / passed / self.processors)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is within 0 and 100"
)]
fn to_percent(value: f64) -> u8 {
    value.round().clamp(0.0, 100.0) as u8
}

/// Time since the last keyboard or mouse input; none without a display, or one that does not tell.
fn idle_for() -> Option<Duration> {
    system_idle_time::get_idle_time().ok()
}

fn processors() -> u32 {
    std::thread::available_parallelism()
        .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Half the processors, so that the owner never waits for a job.
#[must_use]
pub fn default_slots() -> u32 {
    (processors() / 2).max(1)
}

/// This PC's name in the network.
#[must_use]
pub fn hostname() -> String {
    hostname::get().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.to_string_lossy().chars().take(255).collect(),
    )
}

/// What a worker says of this PC when it registers.
#[must_use]
pub fn describe(worker_id: WorkerId, slots: u32, sandbox_level: SandboxLevel) -> RegisterWorker {
    let only_memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(only_memory.with_cpu(CpuRefreshKind::nothing()));
    RegisterWorker {
        worker_id,
        worker_token: None,
        hostname: hostname(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cpu_count: processors(),
        memory_bytes: system.map_or(0, |system| system.total_memory()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots,
        sandbox_level,
        labels: BTreeSet::new(),
        // The owner cannot grant more yet.
        network: Network::None,
        cached_inputs: Vec::new(),
    }
}

/// Ends processes of an earlier worker that still work in one of these folders. Where the sandbox ties a job's life to
/// the worker's, there are none.
pub(crate) fn kill_processes_in(folder: &Path) {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, UpdateKind};

    // Processes know their folder without links.
    let Ok(folder) = folder.canonicalize() else { return };
    let Ok(mut system) = System::new() else { return };
    system.refresh_processes_specifics(
        ProcessesToUpdate::All,
        true,
        ProcessRefreshKind::nothing().with_cwd(UpdateKind::Always).without_tasks(),
    );
    for (id, process) in system.processes() {
        if process.cwd().is_some_and(|cwd| cwd.starts_with(&folder)) {
            tracing::warn!(process.id = id.as_u32(), "process of an earlier worker is ended");
            process.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_pc_describes_itself() {
        let about = describe(WorkerId::generate(), 3, SandboxLevel::L2);
        assert!(about.cpu_count >= 1 && about.memory_bytes > 1 << 20);
        assert!(!about.hostname.is_empty() && !about.os.is_empty() && !about.arch.is_empty());
        assert!(default_slots() >= 1);
    }

    #[test]
    fn the_processor_s_use_is_known_at_the_second_look() {
        let mut machine = ThisPc::default();
        assert_eq!(machine.sample(false).others_cpu, None);
        let second = machine.sample(false).others_cpu;
        assert!(second.is_some_and(|percent| percent <= 100), "{second:?}");
    }
}
