//! How much processor time this program and everything it started have used.

use std::time::Duration;

use sysinfo::System;

/// The time of this process and all below it, those that have ended included.
///
/// Read from the kernel's own table: it also counts what ended and was waited for, so a job that starts many short
/// programs is not mistaken for somebody else.
#[cfg(target_os = "linux")]
pub(super) fn time_of_own_tree(_system: &mut System) -> Duration {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let ticks = linux::ticks_of_tree(std::path::Path::new("/proc"), std::process::id());
    Duration::from_millis(ticks.saturating_mul(1000) / ticks_per_second)
}

/// The time of this process and all below it that still run.
#[cfg(not(target_os = "linux"))]
pub(super) fn time_of_own_tree(system: &mut System) -> Duration {
    use std::collections::HashMap;

    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate};

    system.refresh_processes_specifics(
        ProcessesToUpdate::All,
        true,
        ProcessRefreshKind::nothing().with_cpu().without_tasks(),
    );
    let parents: HashMap<Pid, Option<Pid>> =
        system.processes().iter().map(|(id, process)| (*id, process.parent())).collect();
    let own = Pid::from_u32(std::process::id());
    // Ids are used again, so parents may form a circle: no tree is deeper than there are processes.
    let below = |id: Pid| {
        std::iter::successors(Some(id), |id| parents.get(id).copied().flatten())
            .take(parents.len())
            .any(|id| id == own)
    };
    let millis: u64 = system
        .processes()
        .iter()
        .filter(|(id, _)| below(**id))
        .map(|(_, process)| process.accumulated_cpu_time())
        .sum();
    Duration::from_millis(millis)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{collections::HashMap, fs, path::Path};

    struct Process {
        parent: u32,
        ticks: u64,
    }

    /// Clock ticks of a process and all below it: own, and of children that were waited for.
    pub(super) fn ticks_of_tree(proc: &Path, root: u32) -> u64 {
        let Ok(entries) = fs::read_dir(proc) else { return 0 };
        let mut processes = HashMap::new();
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            if let Some(process) =
                fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| parse(&stat))
            {
                processes.insert(id, process);
            }
        }
        // The table was not read in one moment, so parents may form a circle: no tree is deeper than it is large.
        let below = |id: u32| {
            std::iter::successors(Some(id), |id| Some(processes.get(id)?.parent))
                .take(processes.len())
                .any(|id| id == root)
        };
        processes.iter().filter(|(id, _)| below(**id)).map(|(_, process)| process.ticks).sum()
    }

    /// Reads a line of the form `id (name) state parent … utime stime cutime cstime …`; a name may hold anything.
    fn parse(stat: &str) -> Option<Process> {
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let parent = fields.get(1)?.parse().ok()?;
        let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Process { parent, ticks })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_tree_is_counted_and_nobody_else() {
            let proc = tempfile::tempdir().unwrap();
            let put = |id: u32, parent: u32, times: &str| {
                let folder = proc.path().join(id.to_string());
                fs::create_dir(&folder).unwrap();
                let stat = format!("{id} (a) b) S {parent} 1 1 0 -1 0 0 0 0 0 {times} 20 0 1 0\n");
                fs::write(folder.join("stat"), stat).unwrap();
            };
            put(10, 1, "1 2 3 4");
            put(11, 10, "10 20 30 40");
            put(12, 11, "100 0 0 0");
            put(99, 1, "5000 0 0 0");
            fs::write(proc.path().join("uptime"), "1").unwrap();
            assert_eq!(ticks_of_tree(proc.path(), 10), 210);
            assert_eq!(ticks_of_tree(proc.path(), 77), 0);
        }
    }
}
