//! The feed of what changes in the pool, for pages and commands that follow it.
//!
//! The last changes are kept in memory, so that a reader whose connection broke goes on where it was. One that was
//! away for longer, or across a restart, is told to read everything anew.

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lull_shared::{events::PoolEvent, ids::InvalidId};
use tokio::sync::watch;

use crate::model::Changes;

/// How many changes are kept.
const KEPT: usize = 8192;

/// A place in the feed: which run of the coordinator, and how many changes it had seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCursor {
    run: u64,
    seen: u64,
}

/// All changes since the coordinator started, of which the last are kept.
pub struct Feed {
    run: u64,
    kept: Mutex<Kept>,
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<PoolEvent>,
    /// How many came before the first one that is kept.
    dropped: u64,
}

impl Feed {
    /// A feed of a run that no other run has the number of.
    pub(super) fn new(run: u64) -> Self {
        Self { run, kept: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// Tells what a write changed.
    pub(super) fn tell(&self, changes: &Changes) {
        if changes.jobs.is_empty() && changes.workers.is_empty() {
            return;
        }
        let mut kept = self.lock();
        let jobs = changes.jobs.iter().map(|change| PoolEvent::Job {
            job_id: change.job,
            status: change.state,
            attempt: change.attempt,
            array_id: change.array,
        });
        let workers = changes.workers.iter().map(|id| PoolEvent::Worker { worker_id: *id });
        kept.events.extend(jobs.chain(workers));
        while kept.events.len() > KEPT {
            kept.events.pop_front();
            kept.dropped += 1;
        }
        self.count.send_replace(kept.dropped + kept.events.len() as u64);
    }

    /// Where the feed is now.
    #[must_use]
    pub fn now(&self) -> FeedCursor {
        FeedCursor { run: self.run, seen: *self.count.borrow() }
    }

    /// What followed a place in the feed, up to `limit`, with the place after each; nothing when that is not known
    /// any more.
    #[must_use]
    pub fn after(&self, cursor: FeedCursor, limit: usize) -> Option<Vec<(FeedCursor, PoolEvent)>> {
        let kept = self.lock();
        if cursor.run != self.run || cursor.seen < kept.dropped {
            return None;
        }
        let skip = usize::try_from(cursor.seen - kept.dropped).unwrap_or(usize::MAX);
        let numbered = kept.events.iter().skip(skip).take(limit).zip(cursor.seen + 1..);
        Some(numbered.map(|(event, seen)| (FeedCursor { seen, ..cursor }, event.clone())).collect())
    }

    /// Returns when something followed a place in the feed.
    pub async fn changed(&self, cursor: FeedCursor) {
        let mut count = self.count.subscribe();
        // The sender is our own and lives as long as this call.
        drop(count.wait_for(|count| *count > cursor.seen || cursor.run != self.run).await);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.run, self.seen)
    }
}

impl FromStr for FeedCursor {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (run, seen) = text.split_once('-').ok_or(InvalidId)?;
        let run = u64::from_str_radix(run, 16).map_err(|_| InvalidId)?;
        Ok(Self { run, seen: seen.parse().map_err(|_| InvalidId)? })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use lull_shared::ids::WorkerId;

    use super::*;

    fn a_change() -> Changes {
        Changes { workers: vec![WorkerId::generate()], ..Changes::default() }
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let feed = Feed::new(7);
        let start = feed.now();
        feed.tell(&a_change());
        feed.tell(&a_change());

        let all = feed.after(start, 10).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(feed.after(all[0].0, 10).unwrap(), all[1..]);
        assert_eq!(feed.after(feed.now(), 10).unwrap(), []);
    }

    #[test]
    fn a_reader_that_was_away_too_long_is_told_so() {
        let feed = Feed::new(7);
        let start = feed.now();
        for _ in 0..=KEPT {
            feed.tell(&a_change());
        }
        assert_eq!(feed.after(start, 10), None);
        assert!(feed.after("6-0".parse().unwrap(), 10).is_none(), "another run of the coordinator");
    }

    #[test]
    fn a_reader_is_woken_by_what_follows() {
        let feed = Feed::new(7);
        let start = feed.now();
        assert!(feed.changed(start).now_or_never().is_none());
        feed.tell(&a_change());
        assert!(feed.changed(start).now_or_never().is_some());
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let cursor = FeedCursor { run: u64::MAX, seen: 12 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for damaged in ["", "1", "x-1", "1-", "1-x", "1-2-3"] {
            assert!(damaged.parse::<FeedCursor>().is_err(), "{damaged:?}");
        }
    }
}
