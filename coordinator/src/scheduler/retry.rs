//! What happens to a job after an attempt ends. Pure: the store reads, this decides, the store writes.

use std::time::Duration;

use lull_shared::{
    jobs::{AttemptEnding, OnWorkerLost},
    time::Timestamp,
};

use crate::model::{AttemptFacts, FailReason, NextStep};

/// How often a job is put back because a worker could not run it.
pub const COULD_NOT_RUN_MAX: u32 = 3;
/// A job that lost this many workers is set aside: it may be what takes them down.
pub const WORKERS_LOST_MAX: u32 = 5;
/// The first pause after a worker could not run a job; each further one is twice as long.
const COULD_NOT_RUN_PAUSE: Duration = Duration::from_secs(1);
/// The first pause after a command failed by itself; each further one is twice as long…
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// …up to this one.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// Decides what follows an attempt.
///
/// A worker that gives a job back, or falls silent, costs the job none of its tries: that is not the
/// job's doing. Silence has its own limit; an owner who comes back has none.
#[must_use]
pub fn after_attempt(facts: &AttemptFacts, ending: AttemptEnding, now: Timestamp) -> NextStep {
    match ending {
        AttemptEnding::Succeeded => NextStep::Complete,
        AttemptEnding::Refused => NextStep::Fail(FailReason::Refused),
        AttemptEnding::Cancelled => NextStep::Cancel,
        AttemptEnding::CommandFailed | AttemptEnding::TimedOut
            if facts.failures >= facts.retries =>
        {
            NextStep::Fail(FailReason::CommandFailed)
        }
        AttemptEnding::CommandFailed
        | AttemptEnding::TimedOut
        | AttemptEnding::CouldNotRun
        | AttemptEnding::GivenBack
        | AttemptEnding::WorkerLost
            if facts.cancel_requested =>
        {
            NextStep::Cancel
        }
        AttemptEnding::CommandFailed | AttemptEnding::TimedOut => {
            NextStep::Requeue { not_before: now + retry_pause(facts.failures, facts.seed) }
        }
        AttemptEnding::CouldNotRun if facts.could_not_run >= COULD_NOT_RUN_MAX => {
            NextStep::Fail(FailReason::TriedTooOften)
        }
        AttemptEnding::CouldNotRun => NextStep::Requeue {
            not_before: now + COULD_NOT_RUN_PAUSE * 2_u32.pow(facts.could_not_run),
        },
        AttemptEnding::WorkerLost if facts.on_worker_lost == OnWorkerLost::Fail => {
            NextStep::Fail(FailReason::WorkerLost)
        }
        AttemptEnding::WorkerLost if facts.workers_lost + 1 >= WORKERS_LOST_MAX => {
            NextStep::Fail(FailReason::Poison)
        }
        AttemptEnding::GivenBack | AttemptEnding::WorkerLost => {
            NextStep::Requeue { not_before: now }
        }
    }
}

/// Doubles with each failure. Of each pause the second half is left to chance, so that jobs which failed together do
/// not come back together.
fn retry_pause(failures: u32, seed: u64) -> Duration {
    let whole = RETRY_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_PAUSE_MAX);
    // The finalizer of SplitMix64 spreads neighbouring seeds.
    let mut hash = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = u32::try_from((hash ^ (hash >> 31)) % 1001).unwrap_or_default();
    whole / 2 + whole / 2 * share / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttemptEnding::{
        Cancelled, CommandFailed, CouldNotRun, GivenBack, Refused, Succeeded, TimedOut, WorkerLost,
    };
    use NextStep::{Cancel, Complete, Fail};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const FRESH: AttemptFacts = AttemptFacts {
        failures: 0,
        retries: 0,
        could_not_run: 0,
        workers_lost: 0,
        on_worker_lost: OnWorkerLost::Retry,
        cancel_requested: false,
        seed: 1,
    };

    #[test]
    fn without_retries_what_the_command_did_is_final() {
        check(FRESH, Succeeded, Complete);
        check(FRESH, CommandFailed, Fail(FailReason::CommandFailed));
        check(FRESH, TimedOut, Fail(FailReason::CommandFailed));
        check(FRESH, Refused, Fail(FailReason::Refused));
        check(FRESH, Cancelled, Cancel);
    }

    #[test]
    fn a_command_that_fails_by_itself_is_tried_again_as_often_as_asked_for() {
        let twice = |failures| AttemptFacts { failures, retries: 2, ..FRESH };
        for ending in [CommandFailed, TimedOut] {
            for failures in [0, 1] {
                let next = after_attempt(&twice(failures), ending, NOW);
                assert!(matches!(next, NextStep::Requeue { .. }), "{next:?}");
            }
            check(twice(2), ending, Fail(FailReason::CommandFailed));
        }
        check(twice(0), Refused, Fail(FailReason::Refused));
    }

    #[test]
    fn pauses_double_up_to_ten_minutes_and_are_spread() {
        for (failures, whole) in [(0, 2_000), (1, 4_000), (5, 64_000), (20, 600_000), (99, 600_000)]
        {
            let pauses: Vec<u128> =
                (0..1000).map(|seed| retry_pause(failures, seed).as_millis()).collect();
            let (shortest, longest) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!(*shortest >= whole / 2 && *longest <= whole, "{shortest} to {longest}");
            assert!(longest - shortest > whole * 2 / 5, "{shortest} to {longest}");
        }
    }

    #[test]
    fn a_worker_that_could_not_run_it_is_followed_by_another_after_a_growing_pause() {
        let tried = |could_not_run| AttemptFacts { could_not_run, ..FRESH };
        check(tried(0), CouldNotRun, requeue_in(1));
        check(tried(1), CouldNotRun, requeue_in(2));
        check(tried(2), CouldNotRun, requeue_in(4));
        check(tried(3), CouldNotRun, Fail(FailReason::TriedTooOften));
    }

    #[test]
    fn a_job_given_back_goes_on_at_once_however_often() {
        check(FRESH, GivenBack, requeue_in(0));
        let unlucky = AttemptFacts { could_not_run: 3, workers_lost: 4, failures: 9, ..FRESH };
        check(unlucky, GivenBack, requeue_in(0));
    }

    #[test]
    fn a_silent_worker_is_followed_by_another_and_spends_no_retry() {
        let lost = |workers_lost| AttemptFacts { workers_lost, failures: 3, retries: 3, ..FRESH };
        for workers_lost in 0..4 {
            check(lost(workers_lost), WorkerLost, requeue_in(0));
        }
    }

    #[test]
    fn a_job_that_lost_five_workers_is_poison() {
        check(AttemptFacts { workers_lost: 4, ..FRESH }, WorkerLost, Fail(FailReason::Poison));
    }

    #[test]
    fn a_job_that_is_to_run_at_most_once_fails_with_its_worker() {
        let once = AttemptFacts { on_worker_lost: OnWorkerLost::Fail, ..FRESH };
        check(once, WorkerLost, Fail(FailReason::WorkerLost));
        check(once, GivenBack, requeue_in(0));
    }

    #[test]
    fn a_cancelled_job_is_not_put_back() {
        let cancelled = AttemptFacts { cancel_requested: true, retries: 1, ..FRESH };
        for ending in [CommandFailed, TimedOut, CouldNotRun, GivenBack, WorkerLost] {
            check(cancelled, ending, Cancel);
        }
        check(cancelled, Succeeded, Complete);
    }

    #[track_caller]
    fn check(facts: AttemptFacts, ending: AttemptEnding, expected: NextStep) {
        assert_eq!(after_attempt(&facts, ending, NOW), expected, "{facts:?} {ending:?}");
    }

    fn requeue_in(secs: u64) -> NextStep {
        NextStep::Requeue { not_before: NOW + Duration::from_secs(secs) }
    }
}
