//! Which worker may run which job. Pure.

use lull_shared::jobs::{Requirements, Shell};

use crate::model::Capabilities;

/// Whether a worker meets all that a job asks for.
#[must_use]
pub fn meets(asked: &Requirements, has: &Capabilities) -> bool {
    let os_fits = asked.os.as_deref().is_none_or(|os| match os {
        "unix" => has.os != "windows",
        os => os == has.os,
    });
    os_fits
        && asked.arch.as_ref().is_none_or(|arch| *arch == has.arch)
        && asked.min_cpus <= has.cpu_count
        && asked.min_memory_bytes <= has.memory_bytes
        && asked.labels.is_subset(&has.labels)
        && asked.min_sandbox <= has.sandbox_level
        && asked.network <= has.network
}

/// The systems on which a shell exists, in the words of [`Requirements::os`].
#[must_use]
pub const fn home_of(shell: Shell) -> &'static str {
    match shell {
        Shell::Sh => "unix",
        Shell::Cmd | Shell::Powershell => "windows",
    }
}

#[cfg(test)]
mod tests {
    use lull_shared::{jobs::Network, workers::SandboxLevel};

    use super::*;

    fn a_pc() -> Capabilities {
        Capabilities {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpu_count: 8,
            memory_bytes: 16 << 30,
            labels: ["gpu".to_owned(), "blender".to_owned()].into(),
            sandbox_level: SandboxLevel::L2,
            network: Network::None,
        }
    }

    #[test]
    fn a_worker_runs_what_asks_for_no_more_than_it_has() {
        check(true, |_| {});
        check(true, |asked| asked.os = Some("linux".to_owned()));
        check(true, |asked| asked.os = Some("unix".to_owned()));
        check(false, |asked| asked.os = Some("windows".to_owned()));
        check(true, |asked| asked.arch = Some("x86_64".to_owned()));
        check(false, |asked| asked.arch = Some("aarch64".to_owned()));
        check(true, |asked| asked.min_cpus = 8);
        check(false, |asked| asked.min_cpus = 9);
        check(true, |asked| asked.min_memory_bytes = 16 << 30);
        check(false, |asked| asked.min_memory_bytes = (16 << 30) + 1);
        check(true, |asked| asked.labels = ["gpu".to_owned()].into());
        check(false, |asked| asked.labels = ["gpu".to_owned(), "maya".to_owned()].into());
        for (level, fits) in [
            (SandboxLevel::L0, true),
            (SandboxLevel::L1, true),
            (SandboxLevel::L2, true),
            (SandboxLevel::L3, false),
        ] {
            check(fits, |asked| asked.min_sandbox = level);
        }
        check(false, |asked| asked.network = Network::Internet);
    }

    #[test]
    fn a_windows_pc_is_no_unix() {
        let asked = Requirements { os: Some("unix".to_owned()), ..Requirements::default() };
        assert!(meets(&asked, &Capabilities { os: "macos".to_owned(), ..a_pc() }));
        assert!(!meets(&asked, &Capabilities { os: "windows".to_owned(), ..a_pc() }));
    }

    #[track_caller]
    fn check(fits: bool, ask: impl FnOnce(&mut Requirements)) {
        let mut asked = Requirements::default();
        ask(&mut asked);
        assert_eq!(meets(&asked, &a_pc()), fits, "{asked:?}");
    }
}
