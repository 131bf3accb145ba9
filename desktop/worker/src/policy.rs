//! Decides whether this PC may work right now. Pure: the loop samples, this file judges.
//!
//! Every signal has two thresholds, so that a value that hovers around one does not switch the worker on and off.

use std::time::Duration;

use lull_shared::workers::SuspendReason;

/// Without work at hand: input must have rested this long before a job is taken.
const START_AFTER_IDLE: Duration = Duration::from_secs(5 * 60);
/// With frozen work at hand: input must have rested this long before it goes on.
const RESUME_AFTER_IDLE: Duration = Duration::from_secs(60);
/// A running worker stops above this share of the processor used by others, in percent…
const BUSY_PERCENT: u8 = 50;
/// …and one that stands starts below this.
const CALM_PERCENT: u8 = 30;
/// Frozen work moves to another PC after this long.
pub(crate) const EVICT_AFTER: Duration = Duration::from_secs(10 * 60);

/// What the owner of the PC allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Room for this many attempts at once.
    pub slots: u32,
    /// Nobody to mind: only the owner's pause counts.
    pub always: bool,
}

/// What the PC looks like at one moment, and what was decided the moment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The owner pressed pause.
    pub paused: bool,
    /// Time since the last input; absent when nobody can tell.
    pub idle_for: Option<Duration>,
    /// Share of the processor that other programs use, 0 to 100; absent when it was not measured yet.
    pub others_cpu: Option<u8>,
    /// Whether the PC runs on its battery; absent when it has none.
    pub on_battery: Option<bool>,
    /// Whether attempts are frozen here, waiting to go on.
    pub frozen_work: bool,
    /// What was decided last.
    pub previous: Decision,
    /// How long work has not been allowed.
    pub suspended_for: Duration,
}

/// What the worker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Claim jobs until this many slots are busy; what is frozen goes on.
    Run {
        /// How many.
        slots: u32,
    },
    /// Claim nothing and freeze what runs; leases are still renewed.
    Suspend(SuspendReason),
    /// Claim nothing and give back what is frozen: the reason lasts.
    Evict(SuspendReason),
}

impl Decision {
    /// Why no work is allowed.
    #[must_use]
    pub const fn reason(self) -> Option<SuspendReason> {
        match self {
            Self::Run { slots: _ } => None,
            Self::Suspend(reason) | Self::Evict(reason) => Some(reason),
        }
    }
}

/// Rules are ordered: the first that applies is the one the owner is told.
#[must_use]
pub fn decide(limits: &Limits, seen: &Seen) -> Decision {
    match reason_to_stand(limits, seen) {
        None => Decision::Run { slots: limits.slots },
        Some(reason) if seen.suspended_for >= EVICT_AFTER => Decision::Evict(reason),
        Some(reason) => Decision::Suspend(reason),
    }
}

fn reason_to_stand(limits: &Limits, seen: &Seen) -> Option<SuspendReason> {
    if seen.paused {
        return Some(SuspendReason::PausedByOwner);
    }
    if limits.always {
        return None;
    }
    let Some(idle_for) = seen.idle_for else { return Some(SuspendReason::IdleTimeUnknown) };
    let runs = seen.previous.reason().is_none();
    let idle_min = if runs || seen.frozen_work { RESUME_AFTER_IDLE } else { START_AFTER_IDLE };
    if idle_for < idle_min {
        return Some(SuspendReason::OwnerActive);
    }
    if seen.on_battery == Some(true) {
        return Some(SuspendReason::OnBattery);
    }
    let busy = |percent| if runs { percent > BUSY_PERCENT } else { percent >= CALM_PERCENT };
    seen.others_cpu.is_some_and(busy).then_some(SuspendReason::CpuBusy)
}

#[cfg(test)]
mod tests {
    use Decision::{Evict, Run, Suspend};
    use SuspendReason as Why;

    use super::*;

    const LIMITS: Limits = Limits { slots: 4, always: false };

    #[test]
    fn one_rule_at_a_time() {
        check("nothing in the way", |_, _| {}, Run { slots: 4 });
        check("owner pressed pause", |_, seen| seen.paused = true, Suspend(Why::PausedByOwner));
        check("nobody can tell", |_, seen| seen.idle_for = None, Suspend(Why::IdleTimeUnknown));
        check("owner types", |_, seen| seen.idle_for = secs(0), Suspend(Why::OwnerActive));
        check("on battery", |_, seen| seen.on_battery = Some(true), Suspend(Why::OnBattery));
        check("mains", |_, seen| seen.on_battery = Some(false), Run { slots: 4 });
        check("others are busy", |_, seen| seen.others_cpu = Some(51), Suspend(Why::CpuBusy));
        check("not measured yet", |_, seen| seen.others_cpu = None, Run { slots: 4 });
    }

    #[test]
    fn the_first_rule_that_applies_is_named() {
        let all = |_: &mut Limits, seen: &mut Seen| {
            seen.paused = true;
            seen.idle_for = None;
            seen.on_battery = Some(true);
            seen.others_cpu = Some(100);
        };
        let less = |change: fn(&mut Seen)| {
            move |limits: &mut Limits, seen: &mut Seen| {
                all(limits, seen);
                change(seen);
            }
        };
        check("pause comes first", less(|_| {}), Suspend(Why::PausedByOwner));
        check("then presence", less(|s| s.paused = false), Suspend(Why::IdleTimeUnknown));
        check(
            "a present owner before the battery",
            less(|s| (s.paused, s.idle_for) = (false, secs(1))),
            Suspend(Why::OwnerActive),
        );
        check(
            "the battery before the processor",
            less(|s| (s.paused, s.idle_for) = (false, secs(3600))),
            Suspend(Why::OnBattery),
        );
        check(
            "the processor last",
            less(|s| (s.paused, s.idle_for, s.on_battery) = (false, secs(3600), None)),
            Suspend(Why::CpuBusy),
        );
    }

    #[test]
    fn a_server_without_an_owner_minds_only_the_pause() {
        let busy = |limits: &mut Limits, seen: &mut Seen| {
            limits.always = true;
            seen.idle_for = None;
            seen.on_battery = Some(true);
            seen.others_cpu = Some(100);
        };
        check("everything in the way", busy, Run { slots: 4 });
        check(
            "and paused",
            |limits, seen| {
                busy(limits, seen);
                seen.paused = true;
            },
            Suspend(Why::PausedByOwner),
        );
    }

    #[test]
    fn new_work_waits_for_five_minutes_and_frozen_work_for_one() {
        let stood = Suspend(Why::OwnerActive);
        let after = |idle, frozen| {
            move |_: &mut Limits, seen: &mut Seen| {
                seen.previous = stood;
                seen.idle_for = secs(idle);
                seen.frozen_work = frozen;
            }
        };
        check("nothing frozen, 299 s", after(299, false), stood);
        check("nothing frozen, 300 s", after(300, false), Run { slots: 4 });
        check("frozen, 59 s", after(59, true), stood);
        check("frozen, 60 s", after(60, true), Run { slots: 4 });
        check("running goes on at 60 s", |_, seen| seen.idle_for = secs(60), Run { slots: 4 });
    }

    #[test]
    fn a_load_between_calm_and_busy_changes_nothing() {
        let at = |percent, previous| {
            move |_: &mut Limits, seen: &mut Seen| {
                seen.previous = previous;
                seen.others_cpu = Some(percent);
            }
        };
        let stood = Suspend(Why::CpuBusy);
        check("running at 50", at(50, Run { slots: 4 }), Run { slots: 4 });
        check("running at 51", at(51, Run { slots: 4 }), stood);
        check("standing at 30", at(30, stood), stood);
        check("standing at 29", at(29, stood), Run { slots: 4 });
    }

    #[test]
    fn frozen_work_moves_after_ten_minutes() {
        let after = |suspended, paused| {
            move |_: &mut Limits, seen: &mut Seen| {
                seen.previous = Suspend(Why::OwnerActive);
                seen.idle_for = secs(3);
                seen.paused = paused;
                seen.suspended_for = Duration::from_secs(suspended);
            }
        };
        check("599 s", after(599, false), Suspend(Why::OwnerActive));
        check("600 s", after(600, false), Evict(Why::OwnerActive));
        check("a pause counts as well", after(600, true), Evict(Why::PausedByOwner));
        check(
            "and ends like any other",
            |_, seen| {
                seen.previous = Evict(Why::OwnerActive);
                seen.suspended_for = Duration::from_secs(3600);
            },
            Run { slots: 4 },
        );
    }

    /// Starts from a PC where everything is allowed, changes one thing, compares the verdict.
    #[track_caller]
    fn check(name: &str, change: impl Fn(&mut Limits, &mut Seen), expected: Decision) {
        let mut limits = LIMITS;
        let mut seen = Seen {
            paused: false,
            idle_for: secs(3600),
            others_cpu: Some(10),
            on_battery: None,
            frozen_work: false,
            previous: Run { slots: 4 },
            suspended_for: Duration::ZERO,
        };
        change(&mut limits, &mut seen);
        assert_eq!(decide(&limits, &seen), expected, "{name}");
    }

    #[expect(clippy::unnecessary_wraps, reason = "reads as the field it fills")]
    const fn secs(secs: u64) -> Option<Duration> {
        Some(Duration::from_secs(secs))
    }
}
