//! The attempts this worker answers for: starting, freezing, ending and forgetting them.

use std::sync::Arc;

use lull_shared::jobs::{Assignment, FailureKind, LeaseKey, OnOwnerReturn};
use tokio::{
    task::Id,
    time::{Duration, Instant},
};

use super::{HeldAttempt, Phase, WorkerLoop};
use crate::{
    attempt::{self, Progress, Steering},
    deliver::{self, Kept},
    policy::{self, Decision, Seen},
    runner::KillReason,
    spool::Report,
};

impl HeldAttempt {
    /// The owner is back: freezes the attempt, or ends it when its job is rather to move at once.
    fn give_way(&self) {
        match self.on_owner_return {
            OnOwnerReturn::Pause => self.steering.hold(),
            OnOwnerReturn::Move => self.steering.end(KillReason::OwnerReturned),
        }
    }
}

impl WorkerLoop {
    /// Decides anew whether work is allowed, and acts on it.
    pub(super) fn judge(&mut self) {
        let now = Instant::now();
        let frozen_work = self.decision.reason().is_some() && self.busy_slots() > 0;
        let seen = Seen {
            paused: self.identity.paused,
            idle_for: self.sample.idle_for,
            others_cpu: self.sample.others_cpu,
            on_battery: self.sample.on_battery,
            frozen_work,
            previous: self.decision,
            suspended_for: self
                .suspended_since
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        };
        let decision = policy::decide(&self.limits, &seen);
        if decision == self.decision {
            return;
        }
        tracing::info!(decision = ?decision, "policy changed its mind");
        let before = std::mem::replace(&mut self.decision, decision);
        match decision {
            Decision::Run { slots: _ } => {
                self.suspended_since = None;
                self.running().for_each(|held| held.steering.go());
            }
            Decision::Suspend(_) => {
                self.suspended_since = self.suspended_since.or(Some(now));
                self.stop_claiming();
                self.give_back_waiting(FailureKind::OwnerReturned, "the PC's owner came back");
                self.running().for_each(HeldAttempt::give_way);
            }
            Decision::Evict(_) => {
                self.suspended_since = self.suspended_since.or(Some(now));
                self.stop_claiming();
                self.give_back_waiting(FailureKind::OwnerReturned, "the PC's owner came back");
                self.end_running(KillReason::OwnerReturned);
            }
        }
        if before.reason() != decision.reason() {
            self.hasten_heartbeat();
        }
    }

    fn running(&self) -> impl Iterator<Item = &HeldAttempt> {
        self.held.values().filter(|held| held.phase == Phase::Running)
    }

    pub(super) fn end_running(&self, reason: KillReason) {
        self.running().for_each(|held| held.steering.end(reason));
    }

    /// Ends attempts whose lease this worker could not renew in time: by now another one may have the job.
    pub(super) fn end_expired(&mut self, now: Instant) {
        for (key, held) in &mut self.held {
            if held.phase == Phase::Running && held.lease_until <= now {
                tracing::warn!(job.id = %key.job_id, attempt.number = key.attempt, "lease ran out");
                held.steering.end(KillReason::LeaseLost);
                // Until it is gone, it has no other moment to wait for.
                held.lease_until = now + Duration::from_secs(3600);
            }
        }
    }

    /// Starts a claimed job, or gives it back at once when work is not allowed any more.
    pub(super) fn take_job(&mut self, assignment: Assignment, claimed_at: Instant) {
        // A repeated assignment starts nothing.
        if self.held.contains_key(&assignment.key()) {
            return;
        }
        let lease = Duration::from_millis(assignment.lease_ms);
        if self.stopping.is_some() {
            let message = "the worker is shutting down".to_owned();
            self.give_back(assignment.key(), lease, FailureKind::WorkerStopping, message);
        } else if self.pool.draining {
            let message = "the worker takes nothing new for now".to_owned();
            self.give_back(assignment.key(), lease, FailureKind::WorkerStopping, message);
        } else if self.decision.reason().is_some() {
            let message = "the PC's owner came back in this moment".to_owned();
            self.give_back(assignment.key(), lease, FailureKind::OwnerReturned, message);
        } else if self.free_slots() == 0 {
            self.keep_for_later(assignment, claimed_at);
        } else {
            self.start_attempt(assignment, lease, claimed_at);
        }
    }

    fn start_attempt(&mut self, assignment: Assignment, lease: Duration, claimed_at: Instant) {
        let key = assignment.key();
        let Some(courier) = self.pool.courier.clone() else { return };
        tracing::info!(job.id = %key.job_id, attempt.number = key.attempt, "attempt started");
        let on_owner_return = assignment.on_owner_return;
        let local = attempt::describe(&assignment, self.tools.clock.now());
        let recorded = self.tools.history.started(local.clone());
        let (steering, steered) = Steering::new();
        let tell = self.tell_progress.clone();
        let tools = Arc::clone(&self.tools);
        let task =
            self.tasks.spawn(attempt::run(assignment, courier, tools, steered, recorded, tell));
        let held = HeldAttempt {
            pool: self.pool.number,
            phase: Phase::Running,
            steering,
            on_owner_return,
            local: Some(local),
            lease,
            lease_until: claimed_at + lease,
            began: Instant::now(),
            task: Some(task.id()),
        };
        self.held.insert(key, held);
        self.bring_heartbeat_forward();
    }

    pub(super) fn give_back(
        &mut self,
        key: LeaseKey,
        lease: Duration,
        kind: FailureKind,
        message: String,
    ) {
        tracing::info!(job.id = %key.job_id, attempt.number = key.attempt, "job given back");
        self.spool_and_deliver(Report::failed(key, kind, message), lease);
    }

    /// What an earlier process left behind goes out as soon as the coordinator listens.
    pub(super) fn deliver_what_was_left(&mut self) {
        for report in std::mem::take(&mut self.left) {
            tracing::info!(job.id = %report.key.job_id, "report of an earlier start goes out");
            self.deliver(report, Duration::ZERO);
        }
    }

    fn spool_and_deliver(&mut self, report: Report, lease: Duration) {
        if let Err(error) = self.tools.spool.write(&report, None) {
            tracing::warn!(job.id = %report.key.job_id, error = %error, "report is not spooled");
        }
        self.deliver(report, lease);
    }

    fn deliver(&mut self, report: Report, lease: Duration) {
        let Some(courier) = self.pool.courier.clone() else { return };
        let key = report.key;
        let (steering, mut steered) = Steering::new();
        let tools = Arc::clone(&self.tools);
        let task = self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = steered.wishes.lease_lost() => tools.spool.remove(key),
                () = deliver::deliver(&courier, &tools.spool, report, Kept::OnDisk, &|| ()) => {}
            }
        });
        let held = HeldAttempt {
            pool: self.pool.number,
            phase: Phase::Reporting,
            steering,
            on_owner_return: OnOwnerReturn::Pause,
            local: None,
            lease,
            lease_until: Instant::now() + lease,
            began: Instant::now(),
            task: Some(task.id()),
        };
        self.held.insert(key, held);
    }

    pub(super) fn note_progress(&mut self, key: LeaseKey, step: Progress) {
        let Some(held) = self.held.get_mut(&key) else { return };
        match step {
            Progress::Ran if held.phase == Phase::Running => {
                held.phase = Phase::Ending;
                self.ahead.note_slot_time(held.began.elapsed());
                self.start_waiting();
            }
            Progress::Ran => {}
            Progress::Spooled => held.phase = Phase::Reporting,
        }
    }

    /// An attempt's task is over. One that ended by a panic is reported as a failure of this worker.
    pub(super) fn forget_attempt(&mut self, id: Id, panic: Option<String>) {
        let found = self.held.iter().find(|(_, held)| held.task == Some(id));
        let Some((key, lease)) = found.map(|(key, held)| (*key, held.lease)) else { return };
        let Some(held) = self.held.remove(&key) else { return };
        self.start_waiting();
        let Some(panic) = panic else { return };
        tracing::error!(job.id = %key.job_id, attempt.number = key.attempt, panic, "attempt panicked");
        if held.phase == Phase::Reporting {
            // Its true end is on disk, and goes out with the next start.
            return;
        }
        let message = format!("a defect in the worker: {panic}");
        let report = Report::failed(key, FailureKind::Internal, message);
        self.tools.note_report(&report);
        self.spool_and_deliver(report, lease);
    }
}
