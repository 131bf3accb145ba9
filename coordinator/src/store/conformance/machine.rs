//! The store against a model: random lives of jobs, step by step, must go the same way in both.
//!
//! The model keeps jobs in a list and moves them by the pure rules alone: the table of transitions and the retry rule.
//! All jobs are of one user and one class, and one worker claims, so which job comes next is the first one that may.

use std::{sync::Arc, time::Duration};

use lull_shared::{
    ids::{JobId, WorkerId},
    jobs::{AttemptEnding, JobFilter, JobState, LeaseKey, OnWorkerLost},
    time::Timestamp,
    workers::SandboxLevel,
};
use proptest::{prelude::*, sample::Index};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::runtime::Runtime;

use super::{LEASE, Shared, a_job_with, a_user, a_worker, alive, at, report};
use crate::{
    lifecycle::{self, Step},
    model::{AttemptFacts, NewJob, NextStep, Offer, Submitter},
    scheduler::{CLAIM_RULES, END_RULES, retry},
    store::StoreError,
};

/// What happens next. Jobs are named by position, whatever state they are in: what is not possible must be refused.
#[derive(Clone, Debug)]
pub(crate) enum Happens {
    Submit { retries: u32, at_most_once: bool, hold: bool, after: Option<Index> },
    Claim,
    Finish { job: Index, ending: AttemptEnding, stale: bool },
    Heartbeat { jobs: Vec<Index> },
    Cancel { job: Index },
    Hold { job: Index, held: bool },
    Pass { secs: i64 },
}

/// A job as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    state: JobState,
    attempt: u32,
    held: bool,
    cancel_requested: bool,
    /// Positions of those it waits for.
    needs: Vec<usize>,
    not_before: i64,
    lease_until: i64,
    /// Its lease ran out, and no newer attempt has begun.
    put_back: bool,
    facts: AttemptFacts,
}

/// The pool as the model knows it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    now: i64,
    jobs: Vec<Known>,
}

impl Model {
    fn submit(
        &mut self,
        retries: u32,
        on_worker_lost: OnWorkerLost,
        held: bool,
        needs: Vec<usize>,
    ) {
        let broken = needs
            .iter()
            .any(|need| matches!(self.jobs[*need].state, JobState::Failed | JobState::Cancelled));
        self.jobs.push(Known {
            state: JobState::Pending,
            attempt: 0,
            held,
            cancel_requested: false,
            needs,
            not_before: 0,
            lease_until: 0,
            put_back: false,
            facts: AttemptFacts {
                failures: 0,
                retries,
                could_not_run: 0,
                workers_lost: 0,
                on_worker_lost,
                cancel_requested: false,
                seed: 0,
            },
        });
        if broken {
            self.step(self.jobs.len() - 1, Step::Fail);
        }
    }

    fn may_be_claimed(&self, job: &Known) -> bool {
        let done = |need: &usize| self.jobs[*need].state == JobState::Completed;
        job.state == JobState::Pending
            && !job.held
            && job.not_before <= self.now
            && job.needs.iter().all(done)
    }

    fn step(&mut self, job: usize, step: Step) {
        let known = &mut self.jobs[job];
        known.state = lifecycle::after(known.state, step).expect("the model takes allowed steps");
        if known.state.is_terminal() {
            known.held = false;
            known.not_before = 0;
            if known.state != JobState::Completed {
                self.fail_those_waiting_for(job);
            }
        }
    }

    fn fail_those_waiting_for(&mut self, ended: usize) {
        for job in 0..self.jobs.len() {
            if self.jobs[job].state == JobState::Pending && self.jobs[job].needs.contains(&ended) {
                self.step(job, Step::Fail);
            }
        }
    }

    fn end_attempt(&mut self, job: usize, ending: AttemptEnding) {
        let now = at(self.now);
        let known = &mut self.jobs[job];
        known.facts.seed = ((job as u64 + 1) << 16) ^ u64::from(known.attempt);
        known.facts.cancel_requested = known.cancel_requested;
        let next = retry::after_attempt(&known.facts, ending, now);
        match ending {
            AttemptEnding::CommandFailed | AttemptEnding::TimedOut => known.facts.failures += 1,
            AttemptEnding::CouldNotRun => known.facts.could_not_run += 1,
            AttemptEnding::WorkerLost => known.facts.workers_lost += 1,
            AttemptEnding::Succeeded
            | AttemptEnding::Refused
            | AttemptEnding::GivenBack
            | AttemptEnding::Cancelled => {}
        }
        let step = match next {
            NextStep::Complete => Step::Complete,
            NextStep::Fail(_) => Step::Fail,
            NextStep::Cancel => Step::Cancel,
            NextStep::Requeue { not_before } => {
                known.put_back = ending == AttemptEnding::WorkerLost;
                // Whole seconds later, so that the model's clock meets it.
                let pause = not_before.since(now).as_millis();
                known.not_before = self.now + i64::try_from(pause.div_ceil(1000)).unwrap();
                Step::Requeue
            }
        };
        self.step(job, step);
    }

    /// Whether the worker's word about this attempt counts; a job that was put back is taken back by it.
    fn hold(&mut self, job: usize) -> bool {
        let known = &mut self.jobs[job];
        match known.state {
            JobState::Running => true,
            JobState::Pending if known.put_back => {
                known.put_back = false;
                known.held = false;
                known.not_before = 0;
                known.facts.workers_lost -= 1;
                self.step(job, Step::TakeBack);
                true
            }
            JobState::Pending | JobState::Completed | JobState::Failed | JobState::Cancelled => {
                false
            }
        }
    }

    fn pass(&mut self, secs: i64) {
        self.now += secs;
        for job in 0..self.jobs.len() {
            let known = &self.jobs[job];
            if known.state == JobState::Running && known.lease_until <= self.now {
                self.end_attempt(job, AttemptEnding::WorkerLost);
            }
        }
    }
}

pub(crate) struct Lives;

const LEASE_SECS: i64 = 60;

impl ReferenceStateMachine for Lives {
    type State = Model;
    type Transition = Happens;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model { now: 0, jobs: Vec::new() }).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Happens> {
        let submit = (0..3_u32, any::<bool>(), prop::bool::weighted(0.2), any::<Option<Index>>());
        let ending = prop_oneof![
            3 => Just(AttemptEnding::Succeeded),
            3 => Just(AttemptEnding::CommandFailed),
            1 => Just(AttemptEnding::TimedOut),
            1 => Just(AttemptEnding::Refused),
            2 => Just(AttemptEnding::CouldNotRun),
            2 => Just(AttemptEnding::GivenBack),
            1 => Just(AttemptEnding::Cancelled),
        ];
        prop_oneof![
            4 => submit.prop_map(|(retries, at_most_once, hold, after)| {
                Happens::Submit { retries, at_most_once, hold, after }
            }),
            6 => Just(Happens::Claim),
            5 => (any::<Index>(), ending, prop::bool::weighted(0.15)).prop_map(|(job, ending, stale)| {
                Happens::Finish { job, ending, stale }
            }),
            2 => prop::collection::vec(any::<Index>(), 0..4).prop_map(|jobs| Happens::Heartbeat { jobs }),
            1 => any::<Index>().prop_map(|job| Happens::Cancel { job }),
            1 => (any::<Index>(), any::<bool>()).prop_map(|(job, held)| Happens::Hold { job, held }),
            4 => (1..90_i64).prop_map(|secs| Happens::Pass { secs }),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, happens: &Happens) -> bool {
        matches!(happens, Happens::Submit { .. } | Happens::Claim | Happens::Pass { .. })
            || !model.jobs.is_empty()
    }

    fn apply(mut model: Model, happens: &Happens) -> Model {
        let position = |job: &Index, model: &Model| job.index(model.jobs.len());
        match happens {
            Happens::Submit { retries, at_most_once, hold, after } => {
                let after = after.filter(|_| !model.jobs.is_empty());
                let needs = after.iter().map(|job| position(job, &model)).collect();
                let lost = if *at_most_once { OnWorkerLost::Fail } else { OnWorkerLost::Retry };
                model.submit(*retries, lost, *hold, needs);
            }
            Happens::Claim => {
                let next = model.jobs.iter().position(|job| model.may_be_claimed(job));
                if let Some(job) = next {
                    model.step(job, Step::Claim);
                    let now = model.now;
                    let known = &mut model.jobs[job];
                    known.attempt += 1;
                    known.not_before = 0;
                    known.put_back = false;
                    known.lease_until = now + LEASE_SECS;
                }
            }
            Happens::Finish { job, ending, stale } => {
                let job = position(job, &model);
                if !stale && model.jobs[job].attempt > 0 && model.hold(job) {
                    model.end_attempt(job, *ending);
                }
            }
            Happens::Heartbeat { jobs } => {
                for job in jobs {
                    let job = position(job, &model);
                    if model.jobs[job].attempt > 0 && model.hold(job) {
                        model.jobs[job].lease_until = model.now + LEASE_SECS;
                    }
                }
            }
            Happens::Cancel { job } => {
                let job = position(job, &model);
                match model.jobs[job].state {
                    JobState::Pending => {
                        model.jobs[job].cancel_requested = true;
                        model.step(job, Step::Cancel);
                    }
                    JobState::Running => model.jobs[job].cancel_requested = true,
                    JobState::Completed | JobState::Failed | JobState::Cancelled => {}
                }
            }
            Happens::Hold { job, held } => {
                let job = position(job, &model);
                if model.jobs[job].state == JobState::Pending {
                    model.jobs[job].held = *held;
                }
            }
            Happens::Pass { secs } => model.pass(*secs),
        }
        model
    }
}

/// A real store beside the model.
pub(crate) struct Beside {
    runtime: Runtime,
    store: Shared,
    worker: WorkerId,
    user: Submitter,
    jobs: Vec<JobId>,
    reports: u64,
    _folder: tempfile::TempDir,
}

impl StateMachineTest for Beside {
    type SystemUnderTest = Self;
    type Reference = Lives;

    fn init_test(_: &Model) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::open(folder.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let worker = runtime.block_on(a_worker(&store, "pc", SandboxLevel::L3));
        let (user, jobs) = (a_user("ann"), Vec::new());
        Self { runtime, store, worker, user, jobs, reports: 0, _folder: folder }
    }

    fn apply(mut beside: Self, model: &Model, happens: Happens) -> Self {
        let (store, worker, now) = (Arc::clone(&beside.store), beside.worker, at(model.now));
        let job = |job: &Index| beside.jobs[job.index(beside.jobs.len())];
        match happens {
            Happens::Submit { retries, at_most_once, hold, after } => {
                let after = after.filter(|_| !beside.jobs.is_empty());
                let new = NewJob {
                    submitter: beside.user.clone(),
                    ..a_job_with(|request| {
                        request.retries = retries;
                        request.hold = hold;
                        request.after = after.iter().map(job).collect();
                        if at_most_once {
                            request.on_worker_lost = OnWorkerLost::Fail;
                        }
                    })
                };
                let made = beside.runtime.block_on(store.create_job(new, now)).unwrap();
                beside.jobs.push(made.value.job.job_id);
            }
            Happens::Claim => {
                let offer = Offer { worker, max: 1 };
                beside.runtime.block_on(store.claim(offer, CLAIM_RULES, now, LEASE)).unwrap();
            }
            Happens::Finish { job: index, ending, stale } => {
                let id = job(&index);
                let current = beside.runtime.block_on(store.job(id)).unwrap().attempt;
                let attempt = if stale { current.wrapping_sub(1) } else { current };
                let mut told = report(worker, LeaseKey { job_id: id, attempt }, ending);
                // No report is a repetition of another one.
                beside.reports += 1;
                told.hash[..8].copy_from_slice(&beside.reports.to_le_bytes());
                let done = beside.runtime.block_on(store.finish(told, now, END_RULES));
                assert!(matches!(done, Ok(_) | Err(StoreError::LeaseLost)), "{done:?}");
            }
            Happens::Heartbeat { jobs } => {
                let mut keys = Vec::new();
                for index in &jobs {
                    let id = job(index);
                    let attempt = beside.runtime.block_on(store.job(id)).unwrap().attempt;
                    keys.push(LeaseKey { job_id: id, attempt });
                }
                let life = alive(worker, &keys);
                beside.runtime.block_on(store.heartbeat(life, now, LEASE, END_RULES)).unwrap();
            }
            Happens::Cancel { job: index } => {
                let done = beside.runtime.block_on(store.cancel(job(&index), now));
                assert!(matches!(done, Ok(_) | Err(StoreError::Conflict(_))), "{done:?}");
            }
            Happens::Hold { job: index, held } => {
                let done = beside.runtime.block_on(store.set_held(job(&index), held));
                assert!(matches!(done, Ok(_) | Err(StoreError::Conflict(_))), "{done:?}");
            }
            Happens::Pass { .. } => {
                beside.runtime.block_on(store.expire(now, 1000, END_RULES)).unwrap();
                beside.runtime.block_on(store.tick(now, 1000)).unwrap();
            }
        }
        beside
    }

    fn check_invariants(beside: &Self, model: &Model) {
        let now = at(model.now);
        beside.runtime.block_on(async {
            // Pauses end with the next look at the clock.
            beside.store.tick(now, 1000).await.unwrap();
            for (number, (id, known)) in beside.jobs.iter().zip(&model.jobs).enumerate() {
                let job = beside.store.job(*id).await.unwrap();
                let seen = (job.status, job.attempt, job.held, job.cancel_requested);
                let meant = (known.state, known.attempt, known.held, known.cancel_requested);
                assert_eq!(seen, meant, "job {number}");
                let attempts = job.attempts.len();
                assert_eq!(attempts, job.attempt as usize, "every attempt of job {number} is kept");
                let open = job.attempts.iter().filter(|attempt| attempt.ending.is_none()).count();
                assert_eq!(open, usize::from(job.status == JobState::Running), "job {number}");
            }
            let ready: u32 =
                beside.store.claimable(1000).await.unwrap().iter().map(|job| job.jobs).sum();
            let may = model.jobs.iter().filter(|job| model.may_be_claimed(job)).count();
            assert_eq!(ready as usize, may, "what is ready");
            let counts = beside.store.jobs(&JobFilter::default()).await.unwrap().counts;
            let of = |state| model.jobs.iter().filter(|job| job.state == state).count() as u64;
            let meant = JobState::ALL.map(of);
            let seen =
                [counts.pending, counts.running, counts.completed, counts.failed, counts.cancelled];
            assert_eq!(seen, meant, "counts");
        });
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lives_go_as_the_model_says(sequential 1..50 => Beside);
}

/// The model's clock runs in whole seconds.
#[test]
fn the_lease_is_what_the_model_takes_it_for() {
    assert_eq!(LEASE, Duration::from_secs(LEASE_SECS.cast_unsigned()));
    let _: Timestamp = at(0);
}
