//! Claims ahead: while jobs are so short that asking for the next one takes as long as running it, a few wait here.
//!
//! They wait for moments only. When the jobs before them turn out longer, they are given back at once.

use std::collections::VecDeque;

use lull_shared::jobs::{Assignment, FailureKind, LeaseKey, OnOwnerReturn};
use tokio::time::{Duration, Instant};

use super::{HeldAttempt, Phase, WorkerLoop};
use crate::{attempt::Steering, spool::file_stem};

/// What waits here is to have its turn within this, as far as can be foreseen.
const TURN_WITHIN: Duration = Duration::from_millis(10);
/// Not more for each slot.
const PER_SLOT_MAX: u32 = 4;
/// What has not begun by then is given back.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// Jobs that were claimed ahead, and what tells whether to claim more.
#[derive(Default)]
pub(super) struct Ahead {
    waiting: VecDeque<Waiting>,
    /// How long attempts occupied their slots of late.
    pace: Option<Duration>,
    /// Whether the coordinator has more jobs, as far as its last answer shows.
    pub(super) more: bool,
}

struct Waiting {
    assignment: Assignment,
    claimed_at: Instant,
    since: Instant,
}

impl Ahead {
    /// Takes note of how long an attempt occupied its slot.
    pub(super) fn note_slot_time(&mut self, took: Duration) {
        self.pace = Some(self.pace.map_or(took, |pace| pace * 3 / 4 + took / 4));
    }

    /// How many jobs are to wait here.
    fn wanted(&self, slots: u32) -> u32 {
        let Some(pace) = self.pace.filter(|pace| self.more && *pace <= TURN_WITHIN) else {
            return 0;
        };
        let per_slot = TURN_WITHIN.as_micros() / pace.as_micros().max(1);
        slots * u32::try_from(per_slot).unwrap_or(u32::MAX).min(PER_SLOT_MAX)
    }

    /// How many more to claim beyond those there is room for: none until half of what is wanted is used up.
    pub(super) fn room(&self, slots: u32) -> u32 {
        let (wanted, waiting) = (self.wanted(slots), self.waiting.len());
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        if waiting <= wanted / 2 { wanted - waiting } else { 0 }
    }

    /// When what waits is to be given back.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.since + WAIT_MAX)
    }
}

impl WorkerLoop {
    /// Keeps a claimed job until a slot is free.
    pub(super) fn keep_for_later(&mut self, assignment: Assignment, claimed_at: Instant) {
        let key = assignment.key();
        // From here on a worker that is started again knows by the folder that it held this job.
        if let Err(error) = self.tools.folders.make(&self.tools.folders.path(&file_stem(key))) {
            tracing::warn!(job.id = %key.job_id, error = %error, "job's folder was not made");
        }
        let lease = Duration::from_millis(assignment.lease_ms);
        let held = HeldAttempt {
            pool: self.pool.number,
            phase: Phase::Waiting,
            steering: Steering::new().0,
            on_owner_return: OnOwnerReturn::Move,
            local: None,
            lease,
            lease_until: claimed_at + lease,
            began: Instant::now(),
            task: None,
        };
        self.held.insert(key, held);
        self.ahead.waiting.push_back(Waiting { assignment, claimed_at, since: Instant::now() });
    }

    /// Starts what waits as long as there is room.
    pub(super) fn start_waiting(&mut self) {
        while self.free_slots() > 0
            && let Some(waiting) = self.ahead.waiting.pop_front()
        {
            self.held.remove(&waiting.assignment.key());
            self.take_job(waiting.assignment, waiting.claimed_at);
        }
    }

    /// Gives back what waits: no slot was free in time, or none is to be used.
    pub(super) fn give_back_waiting(&mut self, kind: FailureKind, message: &str) {
        for waiting in std::mem::take(&mut self.ahead.waiting) {
            self.end_waiting(waiting.assignment.key(), Some((kind, message)));
        }
    }

    pub(super) fn give_back_late(&mut self, now: Instant) {
        if self.ahead.ends_at().is_some_and(|at| at <= now) {
            self.ahead.pace = None;
            let message = "the jobs before it on this PC take longer than expected";
            self.give_back_waiting(FailureKind::WorkerStopping, message);
        }
    }

    /// A job that waits was cancelled, or its lease is lost.
    pub(super) fn drop_waiting(&mut self, key: LeaseKey, report: Option<(FailureKind, &str)>) {
        self.ahead.waiting.retain(|waiting| waiting.assignment.key() != key);
        self.end_waiting(key, report);
    }

    fn end_waiting(&mut self, key: LeaseKey, report: Option<(FailureKind, &str)>) {
        let Some(held) = self.held.remove(&key) else { return };
        let tools = std::sync::Arc::clone(&self.tools);
        let folder = tools.folders.path(&file_stem(key));
        if let Some((kind, message)) = report {
            // On disk before the folder goes.
            self.give_back(key, held.lease, kind, message.to_owned());
        }
        self.answers.spawn(async move {
            tools.clear(folder).await;
            super::Answer::Nothing
        });
    }
}
