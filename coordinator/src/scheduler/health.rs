//! Whether a worker is to be trusted with more jobs. Pure.
//!
//! One user's jobs may all fail because of that user. When those of several users fail one after another on one PC,
//! and none succeeds in between, it is the PC.

use lull_shared::jobs::AttemptEnding;

use crate::model::Health;

/// A worker that failed jobs of this many different users in a row is set aside.
pub const FAILED_USERS_MAX: usize = 3;

/// What an attempt's end says of its worker. `failed_users` are those whose jobs failed there in a row.
#[must_use]
pub fn after_attempt(failed_users: &[i64], user: i64, ending: AttemptEnding) -> Health {
    let mut failed_users = failed_users.to_vec();
    match ending {
        AttemptEnding::Succeeded => failed_users.clear(),
        AttemptEnding::CommandFailed | AttemptEnding::TimedOut | AttemptEnding::CouldNotRun => {
            if !failed_users.contains(&user) {
                failed_users.push(user);
            }
        }
        // The job's doing, the owner's, a person's or the network's.
        AttemptEnding::Refused
        | AttemptEnding::GivenBack
        | AttemptEnding::WorkerLost
        | AttemptEnding::Cancelled => {}
    }
    Health { sick: failed_users.len() >= FAILED_USERS_MAX, failed_users }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttemptEnding::{CommandFailed, CouldNotRun, GivenBack, Refused, Succeeded, TimedOut};

    #[test]
    fn three_users_in_a_row_make_a_worker_sick() {
        check(&[(1, CommandFailed), (2, CouldNotRun)], false);
        check(&[(1, CommandFailed), (2, CouldNotRun), (3, TimedOut)], true);
    }

    #[test]
    fn one_users_failures_are_that_users() {
        check(&[(1, CommandFailed); 50], false);
        check(&[(1, CommandFailed), (2, CommandFailed), (1, CommandFailed), (2, TimedOut)], false);
    }

    #[test]
    fn a_success_in_between_clears_the_worker() {
        check(&[(1, CommandFailed), (2, CommandFailed), (3, Succeeded), (3, CommandFailed)], false);
    }

    #[test]
    fn what_is_not_the_workers_doing_counts_for_nothing() {
        check(&[(1, Refused), (2, GivenBack), (3, Refused)], false);
        check(&[(1, CommandFailed), (2, GivenBack), (3, CommandFailed), (2, CommandFailed)], true);
    }

    #[track_caller]
    fn check(attempts: &[(i64, AttemptEnding)], sick: bool) {
        let healthy = Health { failed_users: Vec::new(), sick: false };
        let health = attempts.iter().fold(healthy, |health, (user, ending)| {
            after_attempt(&health.failed_users, *user, *ending)
        });
        assert_eq!(health.sick, sick, "{attempts:?}");
    }
}
