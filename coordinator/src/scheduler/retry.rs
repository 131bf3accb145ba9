//! What happens to a job after an attempt ends. Pure: the store reads, this decides, the store writes.

use std::time::Duration;

use lull_shared::{
    jobs::{AttemptEnding, FailureKind, OnWorkerLost},
    time::Timestamp,
};

use crate::model::{AttemptFacts, FailReason, NextStep};

/// How often a job is put back because a worker could not run it.
pub const COULD_NOT_RUN_MAX: u32 = 3;
/// How often a job is put back because its worker fell silent, so that one which takes down every
/// worker it meets stops in the end.
pub const WORKERS_LOST_MAX: u32 = 5;
/// The first backoff; each further one is twice as long.
const BACKOFF: Duration = Duration::from_secs(1);

/// Decides what follows an attempt.
///
/// A worker that gives a job back, or falls silent, costs the job none of its tries: that is not the
/// job's doing. Silence has its own limit.
#[must_use]
pub fn after_attempt(facts: &AttemptFacts, ending: AttemptEnding, now: Timestamp) -> NextStep {
    match ending {
        AttemptEnding::Succeeded => NextStep::Complete,
        AttemptEnding::CommandFailed => NextStep::Fail(FailReason::CommandFailed),
        AttemptEnding::Refused => NextStep::Fail(FailReason::Refused),
        AttemptEnding::Cancelled => NextStep::Cancel,
        AttemptEnding::CouldNotRun | AttemptEnding::GivenBack | AttemptEnding::WorkerLost
            if facts.cancel_requested =>
        {
            NextStep::Cancel
        }
        AttemptEnding::CouldNotRun if facts.could_not_run >= COULD_NOT_RUN_MAX => {
            NextStep::Fail(FailReason::TriedTooOften)
        }
        AttemptEnding::CouldNotRun => {
            NextStep::Requeue { not_before: now + BACKOFF * 2_u32.pow(facts.could_not_run) }
        }
        AttemptEnding::WorkerLost if facts.on_worker_lost == OnWorkerLost::Fail => {
            NextStep::Fail(FailReason::WorkerLost)
        }
        AttemptEnding::WorkerLost if facts.workers_lost >= WORKERS_LOST_MAX => {
            NextStep::Fail(FailReason::LostTooManyWorkers)
        }
        AttemptEnding::GivenBack | AttemptEnding::WorkerLost => {
            NextStep::Requeue { not_before: now }
        }
    }
}

/// How an attempt ended, by what its worker reports.
#[must_use]
pub const fn ending_of(kind: FailureKind) -> AttemptEnding {
    match kind {
        FailureKind::WorkerStopping | FailureKind::OwnerReturned | FailureKind::WorkerRestarted => {
            AttemptEnding::GivenBack
        }
        FailureKind::Cancelled => AttemptEnding::Cancelled,
        FailureKind::SandboxUnavailable
        | FailureKind::InputUnavailable
        | FailureKind::DiskFull
        | FailureKind::Internal
        | FailureKind::Unknown => AttemptEnding::CouldNotRun,
        FailureKind::InputRefused | FailureKind::OutputsRefused | FailureKind::ExecFailed => {
            AttemptEnding::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttemptEnding::{
        Cancelled, CommandFailed, CouldNotRun, GivenBack, Refused, Succeeded, WorkerLost,
    };
    use NextStep::{Cancel, Complete, Fail};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const FRESH: AttemptFacts = AttemptFacts {
        could_not_run: 0,
        workers_lost: 0,
        on_worker_lost: OnWorkerLost::Retry,
        cancel_requested: false,
    };

    #[test]
    fn what_the_command_did_is_final() {
        check(FRESH, Succeeded, Complete);
        check(FRESH, CommandFailed, Fail(FailReason::CommandFailed));
        check(FRESH, Refused, Fail(FailReason::Refused));
        check(FRESH, Cancelled, Cancel);
    }

    #[test]
    fn a_worker_that_could_not_run_it_is_followed_by_another_after_a_growing_pause() {
        check(tried(0), CouldNotRun, requeue_in(1));
        check(tried(1), CouldNotRun, requeue_in(2));
        check(tried(2), CouldNotRun, requeue_in(4));
        check(tried(3), CouldNotRun, Fail(FailReason::TriedTooOften));
    }

    #[test]
    fn a_job_given_back_goes_on_at_once_however_often() {
        check(FRESH, GivenBack, requeue_in(0));
        check(
            AttemptFacts { could_not_run: 3, workers_lost: 5, ..FRESH },
            GivenBack,
            requeue_in(0),
        );
    }

    #[test]
    fn a_silent_worker_is_followed_by_another_unless_the_submitter_says_otherwise() {
        check(lost(0), WorkerLost, requeue_in(0));
        check(lost(4), WorkerLost, requeue_in(0));
        check(lost(5), WorkerLost, Fail(FailReason::LostTooManyWorkers));
        let once = AttemptFacts { on_worker_lost: OnWorkerLost::Fail, ..FRESH };
        check(once, WorkerLost, Fail(FailReason::WorkerLost));
        check(once, GivenBack, requeue_in(0));
    }

    #[test]
    fn a_cancelled_job_is_not_put_back() {
        let cancelled = AttemptFacts { cancel_requested: true, ..FRESH };
        check(cancelled, CouldNotRun, Cancel);
        check(cancelled, GivenBack, Cancel);
        check(cancelled, WorkerLost, Cancel);
        check(cancelled, Succeeded, Complete);
    }

    #[test]
    fn each_report_of_a_worker_has_its_ending() {
        for (kind, ending) in [
            (FailureKind::WorkerStopping, GivenBack),
            (FailureKind::OwnerReturned, GivenBack),
            (FailureKind::WorkerRestarted, GivenBack),
            (FailureKind::Cancelled, Cancelled),
            (FailureKind::SandboxUnavailable, CouldNotRun),
            (FailureKind::InputUnavailable, CouldNotRun),
            (FailureKind::DiskFull, CouldNotRun),
            (FailureKind::Internal, CouldNotRun),
            (FailureKind::Unknown, CouldNotRun),
            (FailureKind::InputRefused, Refused),
            (FailureKind::OutputsRefused, Refused),
            (FailureKind::ExecFailed, Refused),
        ] {
            assert_eq!(ending_of(kind), ending, "{kind:?}");
        }
    }

    #[track_caller]
    fn check(facts: AttemptFacts, ending: AttemptEnding, expected: NextStep) {
        assert_eq!(after_attempt(&facts, ending, NOW), expected);
    }

    fn tried(could_not_run: u32) -> AttemptFacts {
        AttemptFacts { could_not_run, ..FRESH }
    }

    fn lost(workers_lost: u32) -> AttemptFacts {
        AttemptFacts { workers_lost, ..FRESH }
    }

    fn requeue_in(secs: u64) -> NextStep {
        NextStep::Requeue { not_before: NOW + Duration::from_secs(secs) }
    }
}
