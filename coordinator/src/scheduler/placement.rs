//! Which worker may run which job. Pure.

use lull_shared::workers::SandboxLevel;

/// The requirements a worker of this level meets: jobs that ask for no more than it gives.
#[must_use]
pub const fn meets(level: SandboxLevel) -> &'static [SandboxLevel] {
    const ALL: &[SandboxLevel; 4] = &SandboxLevel::ALL;
    match level {
        SandboxLevel::L0 => ALL.split_at(1).0,
        SandboxLevel::L1 => ALL.split_at(2).0,
        SandboxLevel::L2 => ALL.split_at(3).0,
        SandboxLevel::L3 => ALL,
    }
}

/// The levels at which a worker may run a job that asks for this much.
pub fn levels_for(min_sandbox: SandboxLevel) -> impl Iterator<Item = SandboxLevel> {
    SandboxLevel::ALL.into_iter().filter(move |level| meets(*level).contains(&min_sandbox))
}

#[cfg(test)]
mod tests {
    use super::*;
    use SandboxLevel::{L0, L1, L2, L3};

    #[test]
    fn a_worker_runs_what_asks_for_no_more_than_it_gives() {
        check(L0, &[L0], &[L0, L1, L2, L3]);
        check(L1, &[L0, L1], &[L1, L2, L3]);
        check(L2, &[L0, L1, L2], &[L2, L3]);
        check(L3, &[L0, L1, L2, L3], &[L3]);
    }

    #[track_caller]
    fn check(level: SandboxLevel, met: &[SandboxLevel], levels: &[SandboxLevel]) {
        assert_eq!(meets(level), met);
        assert_eq!(levels_for(level).collect::<Vec<_>>(), levels);
    }
}
