//! Workers that wait for a job. One arriving job wakes one of them: of those that can run it, one that has its input
//! at hand, else the one that waits longest.
//!
//! For each class of requirements there is a line of the workers that meet it, made when a job of the class first
//! arrives and kept up as workers come and go. So an arriving job costs the same with ten thousand waiting workers
//! as with ten.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lull_shared::{
    ids::{Digest, WorkerId},
    jobs::Requirements,
};
use tokio::sync::oneshot;

use super::placement;
use crate::model::{Capabilities, ReadyJob};

/// More lines than this are made anew when they are needed.
const LINES_MAX: usize = 256;
/// Of this many inputs it is remembered who has them at hand…
const INPUTS_MAX: usize = 16_384;
/// …and of each input this many workers.
const HOLDERS_MAX: usize = 16;

/// All workers that wait right now, and which inputs workers have at hand.
#[derive(Default)]
pub(super) struct Waiting {
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    next_ticket: u64,
    waiting: BTreeMap<u64, Waiter>,
    /// Tickets of those that meet the requirements.
    by_class: HashMap<Requirements, BTreeSet<u64>>,
    by_worker: HashMap<WorkerId, BTreeSet<u64>>,
    holders: HashMap<Digest, Vec<WorkerId>>,
    /// How often nobody was there to be woken.
    missed: u64,
}

struct Waiter {
    worker: WorkerId,
    capabilities: Capabilities,
    sender: oneshot::Sender<Hint>,
}

/// Something a job asks for has become claimable.
#[derive(Clone, Debug)]
struct Hint(Requirements);

/// A worker's place in the line. Leaving it passes on a wake-up that was not used.
pub(super) struct Place {
    waiting: Arc<Waiting>,
    worker: WorkerId,
    capabilities: Capabilities,
    ticket: u64,
    next: oneshot::Receiver<Hint>,
    in_hand: Option<Hint>,
}

/// A moment: what became claimable since then either woke a worker or counts as missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since(u64);

impl Waiting {
    /// This moment. Take it, try to claim, enter: when [`Waiting::missed`] nothing since then, another claim would
    /// find nothing either.
    pub(super) fn since(&self) -> Since {
        Since(self.lock().missed)
    }

    /// Whether something became claimable since a moment that nobody was woken for.
    pub(super) fn missed(&self, since: Since) -> bool {
        self.lock().missed != since.0
    }

    /// Joins the end of the line: what becomes claimable from now on may wake the place.
    pub(super) fn enter(self: &Arc<Self>, worker: WorkerId, capabilities: Capabilities) -> Place {
        let (sender, next) = oneshot::channel();
        let mut lines = self.lock();
        let ticket = lines.next_ticket;
        lines.next_ticket += 1;
        lines.insert(ticket, Waiter { worker, capabilities: capabilities.clone(), sender });
        Place { waiting: Arc::clone(self), worker, capabilities, ticket, next, in_hand: None }
    }

    /// Wakes as many workers for a job as there are of it, and tells how many were woken.
    pub(super) fn wake(&self, job: &ReadyJob) -> u32 {
        let woken = (0..job.jobs).take_while(|_| self.wake_one(&job.requirements, job.input, None));
        u32::try_from(woken.count()).unwrap_or(u32::MAX)
    }

    fn wake_one(
        &self,
        requirements: &Requirements,
        input: Option<Digest>,
        behind: Option<u64>,
    ) -> bool {
        let mut lines = self.lock();
        while let Some(ticket) = lines.best(requirements, input, behind) {
            let waiter = lines.remove(ticket);
            let hint = Hint(requirements.clone());
            if waiter.is_some_and(|waiter| waiter.sender.send(hint).is_ok()) {
                return true;
            }
        }
        lines.missed += 1;
        false
    }

    /// Notes that a worker has an input at hand.
    pub(super) fn note_input(&self, worker: WorkerId, input: Digest) {
        let mut lines = self.lock();
        if lines.holders.len() >= INPUTS_MAX && !lines.holders.contains_key(&input) {
            lines.holders.clear();
        }
        let holders = lines.holders.entry(input).or_default();
        holders.retain(|holder| *holder != worker);
        holders.push(worker);
        if holders.len() > HOLDERS_MAX {
            holders.remove(0);
        }
    }

    /// How many workers wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn insert(&mut self, ticket: u64, waiter: Waiter) {
        for (requirements, line) in &mut self.by_class {
            if placement::meets(requirements, &waiter.capabilities) {
                line.insert(ticket);
            }
        }
        self.by_worker.entry(waiter.worker).or_default().insert(ticket);
        self.waiting.insert(ticket, waiter);
    }

    fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket)?;
        for line in self.by_class.values_mut() {
            line.remove(&ticket);
        }
        if let Some(tickets) = self.by_worker.get_mut(&waiter.worker) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.by_worker.remove(&waiter.worker);
            }
        }
        Some(waiter)
    }

    /// The ticket of the best worker for a job, of those who stand behind a ticket when one is given.
    fn best(
        &mut self,
        requirements: &Requirements,
        input: Option<Digest>,
        behind: Option<u64>,
    ) -> Option<u64> {
        if !self.by_class.contains_key(requirements) {
            if self.by_class.len() >= LINES_MAX {
                self.by_class.clear();
            }
            let fit = self
                .waiting
                .iter()
                .filter(|(_, it)| placement::meets(requirements, &it.capabilities));
            let line = fit.map(|(ticket, _)| *ticket).collect();
            self.by_class.insert(requirements.clone(), line);
        }
        let line = &self.by_class[requirements];
        let holders = input.and_then(|input| self.holders.get(&input)).into_iter().flatten();
        let near = holders
            .filter_map(|holder| self.by_worker.get(holder))
            .flatten()
            .find(|ticket| line.contains(ticket) && behind.is_none_or(|behind| **ticket > behind));
        let start = behind.map_or(Bound::Unbounded, Bound::Excluded);
        near.or_else(|| line.range((start, Bound::Unbounded)).next()).copied()
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
        let (worker, capabilities) = (self.worker, self.capabilities.clone());
        self.waiting.lock().insert(self.ticket, Waiter { worker, capabilities, sender });
    }

    /// Wakes somebody further back in the line for jobs that this worker leaves to others.
    pub(super) fn pass_on(&self, jobs: &[ReadyJob]) {
        for job in jobs {
            self.waiting.wake_one(&job.requirements, job.input, Some(self.ticket));
        }
    }

    /// Leaves after a claim that brought jobs: the wake-up in hand was used.
    pub(super) fn leave_served(mut self) {
        self.in_hand = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.lock().remove(self.ticket);
        // Out of the line, so nothing can arrive any more; what did arrive belongs to the next one.
        let unused = self.next.try_recv().ok();
        for Hint(requirements) in unused.into_iter().chain(self.in_hand.take()) {
            self.waiting.wake_one(&requirements, None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SandboxLevel::{L0, L2, L3};
    use futures_util::FutureExt as _;
    use lull_shared::{jobs::Network, workers::SandboxLevel};

    /// A worker of a level takes a place.
    fn enter(waiting: &Arc<Waiting>, level: SandboxLevel) -> Place {
        enter_as(waiting, WorkerId::generate(), level)
    }

    fn enter_as(waiting: &Arc<Waiting>, worker: WorkerId, sandbox_level: SandboxLevel) -> Place {
        let capabilities = Capabilities {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpu_count: 4,
            memory_bytes: 8 << 30,
            labels: BTreeSet::new(),
            sandbox_level,
            network: Network::None,
        };
        waiting.enter(worker, capabilities)
    }

    fn a_job(min_sandbox: SandboxLevel) -> ReadyJob {
        let requirements = Requirements { min_sandbox, ..Requirements::default() };
        ReadyJob { requirements, input: None, jobs: 1 }
    }

    /// Wakes somebody for a job that asks for a level.
    fn wake(waiting: &Waiting, level: SandboxLevel) -> bool {
        waiting.wake(&a_job(level)) == 1
    }

    #[test]
    fn an_arriving_job_wakes_one_worker_the_one_that_waits_longest() {
        let waiting = Arc::new(Waiting::default());
        let (mut first, mut second) = (enter(&waiting, L3), enter(&waiting, L2));

        assert!(wake(&waiting, L2));

        assert!(first.woken().now_or_never().is_some());
        assert!(second.woken().now_or_never().is_none());
    }

    #[test]
    fn a_job_passes_over_workers_that_cannot_run_it() {
        let waiting = Arc::new(Waiting::default());
        let (mut weak, mut strong) = (enter(&waiting, L0), enter(&waiting, L2));

        assert!(wake(&waiting, L2));
        assert!(!wake(&waiting, L3), "nobody here can run it");

        assert!(strong.woken().now_or_never().is_some());
        assert!(weak.woken().now_or_never().is_none());
    }

    #[test]
    fn a_wake_up_before_the_worker_waits_is_not_lost() {
        let waiting = Arc::new(Waiting::default());
        let mut place = enter(&waiting, L2);
        wake(&waiting, L2);
        assert!(place.woken().now_or_never().is_some());
    }

    #[test]
    fn a_woken_worker_that_found_nothing_keeps_its_place() {
        let waiting = Arc::new(Waiting::default());
        let (mut first, mut second) = (enter(&waiting, L2), enter(&waiting, L2));
        wake(&waiting, L2);
        assert!(first.woken().now_or_never().is_some());

        wake(&waiting, L2);

        assert!(first.woken().now_or_never().is_some());
        assert!(second.woken().now_or_never().is_none());
    }

    #[test]
    fn a_worker_that_goes_away_passes_its_wake_up_on() {
        let waiting = Arc::new(Waiting::default());
        let (mut woken, unaware, mut next) =
            (enter(&waiting, L2), enter(&waiting, L2), enter(&waiting, L2));
        wake(&waiting, L2);
        assert!(woken.woken().now_or_never().is_some());

        drop(woken);
        assert!(next.woken().now_or_never().is_none(), "the second in the line is the next one");
        drop(unaware);

        assert!(next.woken().now_or_never().is_some());
    }

    #[test]
    fn a_worker_that_got_a_job_passes_nothing_on() {
        let waiting = Arc::new(Waiting::default());
        let (mut served, mut next) = (enter(&waiting, L2), enter(&waiting, L2));
        wake(&waiting, L2);
        assert!(served.woken().now_or_never().is_some());

        served.leave_served();

        assert!(next.woken().now_or_never().is_none());
    }

    #[test]
    fn a_worker_that_goes_away_leaves_nothing_behind() {
        let waiting = Arc::new(Waiting::default());
        drop(enter(&waiting, L2));
        assert!(!wake(&waiting, L2));
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn what_nobody_is_woken_for_is_missed() {
        let waiting = Arc::new(Waiting::default());
        let since = waiting.since();
        assert!(!waiting.missed(since));
        assert!(!wake(&waiting, L2));
        assert!(waiting.missed(since), "nobody was in the line yet");

        let since = waiting.since();
        let place = enter(&waiting, L2);
        assert!(wake(&waiting, L2));
        assert!(!waiting.missed(since), "somebody will claim it");
        drop(place);
        assert!(
            waiting.missed(since),
            "whoever was to claim it has left, and nobody else is there"
        );
    }

    #[test]
    fn an_array_wakes_as_many_as_it_has_jobs() {
        let waiting = Arc::new(Waiting::default());
        let mut places = [(); 4].map(|()| enter(&waiting, L2));

        assert_eq!(waiting.wake(&ReadyJob { jobs: 3, ..a_job(L2) }), 3);

        let woken = places.iter_mut().filter_map(|place| place.woken().now_or_never()).count();
        assert_eq!(woken, 3);
        assert_eq!(waiting.wake(&ReadyJob { jobs: 100_000, ..a_job(L2) }), 4);
    }

    #[test]
    fn a_worker_that_has_the_input_at_hand_comes_first() {
        let waiting = Arc::new(Waiting::default());
        let (near, input) = (WorkerId::generate(), Digest::of(b"scene"));
        let (mut first, mut second) = (enter(&waiting, L2), enter_as(&waiting, near, L2));
        waiting.note_input(near, input);

        waiting.wake(&ReadyJob { input: Some(input), ..a_job(L2) });
        assert!(second.woken().now_or_never().is_some());

        waiting.wake(&ReadyJob { input: Some(Digest::of(b"other")), ..a_job(L2) });
        assert!(first.woken().now_or_never().is_some(), "nobody has it: the longest wait counts");
    }

    #[test]
    fn a_worker_that_has_the_input_but_cannot_run_the_job_is_passed_over() {
        let waiting = Arc::new(Waiting::default());
        let (weak, input) = (WorkerId::generate(), Digest::of(b"scene"));
        let (mut near, mut able) = (enter_as(&waiting, weak, L0), enter(&waiting, L2));
        waiting.note_input(weak, input);

        waiting.wake(&ReadyJob { input: Some(input), ..a_job(L2) });

        assert!(able.woken().now_or_never().is_some());
        assert!(near.woken().now_or_never().is_none());
    }

    #[test]
    fn what_a_worker_leaves_to_others_wakes_those_behind_it_and_then_nobody() {
        let waiting = Arc::new(Waiting::default());
        let (first, mut second) = (enter(&waiting, L2), enter(&waiting, L2));

        first.pass_on(&[a_job(L2)]);
        assert!(second.woken().now_or_never().is_some());

        second.pass_on(&[a_job(L2)]);
        assert!(second.woken().now_or_never().is_none());
    }

    #[test]
    fn many_classes_do_not_grow_without_bound() {
        let waiting = Arc::new(Waiting::default());
        let mut place = enter(&waiting, L2);
        for cpus in 0..LINES_MAX as u32 * 2 {
            let requirements = Requirements { min_cpus: 100 + cpus, ..Requirements::default() };
            assert_eq!(waiting.wake(&ReadyJob { requirements, input: None, jobs: 1 }), 0);
        }
        assert!(waiting.lock().by_class.len() <= LINES_MAX);
        assert!(wake(&waiting, L2));
        assert!(place.woken().now_or_never().is_some());
    }
}
