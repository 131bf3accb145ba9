//! How long to wait before asking again somebody who did not answer.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from half a second to half a minute; each wait is shortened by chance by up to a half, so that the
/// workers of a pool do not all return in the same moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: the next failure begins anew.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether nothing failed since it last worked.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// It failed: how long to wait.
    pub(crate) fn next(&mut self) -> Duration {
        self.next_by(RandomState::new().build_hasher().finish())
    }

    fn next_by(&mut self, chance: u64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let part = u32::try_from(chance % 1000).unwrap_or(0);
        whole - whole / 2 * part / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next_by(0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next_by(0), FIRST);
    }

    #[test]
    fn chance_shortens_a_wait_by_at_most_a_half() {
        for chance in [0, 1, 500, 999, u64::MAX] {
            let wait = Backoff { failures: 6 }.next_by(chance);
            assert!(wait <= LONGEST && wait >= LONGEST / 2, "{wait:?}");
        }
        assert!(Backoff { failures: 6 }.next() <= LONGEST);
    }
}
