//! Workers that wait for a job. One arriving job wakes one of them: the one that waits longest and
//! can run it.
//!
//! Workers that offer the same stand in one line, so the cost of a wake-up depends on the number of
//! different offers and not on the number of workers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lull_shared::workers::SandboxLevel;
use tokio::sync::oneshot;

use super::placement;

/// All workers that wait right now.
#[derive(Default)]
pub(super) struct Waiting {
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    next_ticket: u64,
    by_level: [BTreeMap<u64, oneshot::Sender<Hint>>; SandboxLevel::ALL.len()],
}

/// A job that asks for this much has become claimable.
#[derive(Clone, Copy)]
struct Hint(SandboxLevel);

/// A worker's place in the line. Leaving it passes on a wake-up that was not used.
pub(super) struct Place {
    waiting: Arc<Waiting>,
    level: SandboxLevel,
    ticket: u64,
    next: oneshot::Receiver<Hint>,
    in_hand: Option<Hint>,
}

impl Waiting {
    /// Joins the end of the line. Enter first, then try to claim: a job that becomes claimable in
    /// between wakes the place.
    pub(super) fn enter(self: &Arc<Self>, level: SandboxLevel) -> Place {
        let (sender, next) = oneshot::channel();
        let mut lines = self.lock();
        let ticket = lines.next_ticket;
        lines.next_ticket += 1;
        lines.by_level[level as usize].insert(ticket, sender);
        Place { waiting: Arc::clone(self), level, ticket, next, in_hand: None }
    }

    /// Wakes the worker that waits longest of those that can run a job which asks for this much.
    /// Returns whether there was one.
    pub(super) fn wake(&self, min_sandbox: SandboxLevel) -> bool {
        let mut lines = self.lock();
        loop {
            let first = placement::levels_for(min_sandbox)
                .filter_map(|level| {
                    let (ticket, _) = lines.by_level[level as usize].first_key_value()?;
                    Some((*ticket, level))
                })
                .min();
            let Some((ticket, level)) = first else { return false };
            let sender = lines.by_level[level as usize].remove(&ticket);
            if sender.is_some_and(|sender| sender.send(Hint(min_sandbox)).is_ok()) {
                return true;
            }
        }
    }

    /// How many workers wait.
    pub(super) fn len(&self) -> usize {
        self.lock().by_level.iter().map(BTreeMap::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for a wake-up, and is back in the same place of the line when it comes. To be called
    /// again after the claim that follows it came back empty.
    pub(super) async fn woken(&mut self) {
        self.in_hand = None;
        if let Ok(hint) = (&mut self.next).await {
            self.in_hand = Some(hint);
        }
        let (sender, next) = oneshot::channel();
        self.next = next;
        self.waiting.lock().by_level[self.level as usize].insert(self.ticket, sender);
    }

    /// Leaves after a claim that brought jobs: the wake-up in hand was used.
    pub(super) fn leave_served(mut self) {
        self.in_hand = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.lock().by_level[self.level as usize].remove(&self.ticket);
        // Out of the line, so nothing can arrive any more; what did arrive belongs to the next one.
        let unused = self.next.try_recv().ok();
        for Hint(min_sandbox) in unused.into_iter().chain(self.in_hand) {
            self.waiting.wake(min_sandbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SandboxLevel::{L0, L2, L3};
    use futures_util::FutureExt as _;

    #[test]
    fn an_arriving_job_wakes_one_worker_the_one_that_waits_longest() {
        let waiting = Arc::new(Waiting::default());
        let (mut first, mut second) = (waiting.enter(L3), waiting.enter(L2));

        assert!(waiting.wake(L2));

        assert!(first.woken().now_or_never().is_some());
        assert!(second.woken().now_or_never().is_none());
    }

    #[test]
    fn a_job_passes_over_workers_that_cannot_run_it() {
        let waiting = Arc::new(Waiting::default());
        let (mut weak, mut strong) = (waiting.enter(L0), waiting.enter(L2));

        assert!(waiting.wake(L2));
        assert!(!waiting.wake(L3), "nobody here can run it");

        assert!(strong.woken().now_or_never().is_some());
        assert!(weak.woken().now_or_never().is_none());
    }

    #[test]
    fn a_wake_up_before_the_worker_waits_is_not_lost() {
        let waiting = Arc::new(Waiting::default());
        let mut place = waiting.enter(L2);
        waiting.wake(L2);
        assert!(place.woken().now_or_never().is_some());
    }

    #[test]
    fn a_woken_worker_that_found_nothing_keeps_its_place() {
        let waiting = Arc::new(Waiting::default());
        let (mut first, mut second) = (waiting.enter(L2), waiting.enter(L2));
        waiting.wake(L2);
        assert!(first.woken().now_or_never().is_some());

        waiting.wake(L2);

        assert!(first.woken().now_or_never().is_some());
        assert!(second.woken().now_or_never().is_none());
    }

    #[test]
    fn a_worker_that_goes_away_passes_its_wake_up_on() {
        let waiting = Arc::new(Waiting::default());
        let (mut woken, unaware, mut next) =
            (waiting.enter(L2), waiting.enter(L2), waiting.enter(L2));
        waiting.wake(L2);
        assert!(woken.woken().now_or_never().is_some());

        drop(woken);
        assert!(next.woken().now_or_never().is_none(), "the second in the line is the next one");
        drop(unaware);

        assert!(next.woken().now_or_never().is_some());
    }

    #[test]
    fn a_worker_that_got_a_job_passes_nothing_on() {
        let waiting = Arc::new(Waiting::default());
        let (mut served, mut next) = (waiting.enter(L2), waiting.enter(L2));
        waiting.wake(L2);
        assert!(served.woken().now_or_never().is_some());

        served.leave_served();

        assert!(next.woken().now_or_never().is_none());
    }

    #[test]
    fn a_worker_that_goes_away_leaves_nothing_behind() {
        let waiting = Arc::new(Waiting::default());
        drop(waiting.enter(L2));
        assert!(!waiting.wake(L2));
        assert_eq!(waiting.len(), 0);
    }
}
