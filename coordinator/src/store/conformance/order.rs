//! Cases about which job goes to which worker, and when.

use lull_shared::{
    ids::JobId,
    jobs::{AttemptEnding, JobFilter, JobState},
    workers::{SandboxLevel, WorkerState},
};

use super::{
    LEASE, Shared, a_job, a_job_with, a_user, a_worker, alive, at, claim, claim_one, finish,
    isolated, machine, run_one, state_of, submit, tick, two_workers,
};
use crate::{
    model::{Enrolment, NewJob, Submitter},
    scheduler::END_RULES,
    store::StoreError,
};
use AttemptEnding::{CommandFailed, CouldNotRun, Succeeded};

fn of(user: &Submitter) -> NewJob {
    NewJob { submitter: user.clone(), ..a_job() }
}

/// Claims so many jobs one by one, and tells whose they are.
async fn served(store: &Shared, worker: lull_shared::ids::WorkerId, jobs: u32) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..jobs {
        names.extend(claim(store, worker, 1, at(1)).await.into_iter().map(|job| job.submitted_by));
    }
    names
}

pub(crate) async fn a_higher_priority_goes_first(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let mut submitted = Vec::new();
    for priority in [0, -5, 100, 3, 100] {
        let job = a_job_with(|request| request.priority = priority);
        submitted.push((priority, submit(store, job).await));
    }
    submitted.sort_by_key(|(priority, id)| (-priority, *id));

    let claimed: Vec<_> =
        claim(store, worker, 9, at(1)).await.into_iter().map(|job| job.job_id).collect();

    assert_eq!(claimed, submitted.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

pub(crate) async fn users_take_turns_whatever_they_have_waiting(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let (ann, ben, eve) = (a_user("ann"), a_user("ben"), a_user("eve"));
    for _ in 0..100 {
        submit(store, of(&ann)).await;
    }
    served(store, worker, 20).await;
    submit(store, of(&ben)).await;
    submit(store, of(&ben)).await;
    submit(store, of(&eve)).await;

    let order = served(store, worker, 6).await;

    // At most one job of each other user comes before anybody's first.
    assert!(order[..2].contains(&"ben".to_owned()), "{order:?}");
    assert!(order[..3].contains(&"eve".to_owned()), "{order:?}");
    assert_eq!(order.iter().filter(|name| *name == "ben").count(), 2, "{order:?}");
}

pub(crate) async fn a_weight_gives_more_turns(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let (ann, ben) = (a_user("ann"), Submitter { weight: 3, ..a_user("ben") });
    for _ in 0..40 {
        submit(store, of(&ann)).await;
        submit(store, of(&ben)).await;
    }
    let order = served(store, worker, 40).await;
    let bens = order.iter().filter(|name| *name == "ben").count();
    assert!((29..=31).contains(&bens), "{order:?}");
}

pub(crate) async fn a_worker_gets_only_what_it_meets(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L2).await;
    for ask in [
        (|asked| asked.os = Some("windows".to_owned())) as fn(&mut lull_shared::jobs::Requirements),
        |asked| asked.arch = Some("aarch64".to_owned()),
        |asked| asked.min_cpus = 9,
        |asked| asked.min_memory_bytes = (16 << 30) + 1,
        |asked| asked.labels = ["maya".to_owned()].into(),
        |asked| asked.min_sandbox = SandboxLevel::L3,
        |asked| asked.network = lull_shared::jobs::Network::Internet,
    ] {
        submit(store, a_job_with(|request| ask(&mut request.requirements))).await;
    }
    assert_eq!(claim(store, worker, 64, at(1)).await, []);
    let job = a_job_with(|request| {
        request.requirements.os = Some("unix".to_owned());
        request.requirements.min_cpus = 8;
        request.requirements.labels = ["blender".to_owned()].into();
    });
    let fits = submit(store, job).await;
    assert_eq!(claim_one(store, worker, at(1)).await.job_id, fits);
}

pub(crate) async fn jobs_nobody_can_run_hide_nothing(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L2).await;
    let ann = a_user("ann");
    for _ in 0..200 {
        submit(store, NewJob { submitter: ann.clone(), ..isolated(SandboxLevel::L3) }).await;
    }
    let fits = submit(store, of(&ann)).await;
    assert_eq!(claim_one(store, worker, at(1)).await.job_id, fits);
}

pub(crate) async fn a_worker_is_not_given_again_what_it_failed_while_another_can(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let (ann, ben) = (a_user("ann"), a_user("ben"));
    let id = submit(store, of(&ann)).await;
    assert_eq!(run_one(store, one, CouldNotRun, at(1)).await, id);
    tick(store, at(20)).await;
    for worker in [one, two] {
        store.heartbeat(alive(worker, &[]), at(20), LEASE, END_RULES).await.unwrap();
    }

    let offer = crate::model::Offer { worker: one, max: 1 };
    let claimed =
        store.claim(offer, crate::scheduler::CLAIM_RULES, at(20), LEASE).await.unwrap().value;
    assert_eq!(claimed.jobs, []);
    assert_eq!(claimed.passed_on.len(), 1, "somebody else is to be woken");
    let other = submit(store, of(&ben)).await;
    assert_eq!(claim_one(store, one, at(20)).await.job_id, other, "it gets what is behind it");
    assert_eq!(claim_one(store, two, at(20)).await.job_id, id);
}

pub(crate) async fn a_worker_gets_back_what_it_failed_when_no_other_can(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let id = submit(store, a_job()).await;
    run_one(store, one, CouldNotRun, at(1)).await;
    tick(store, at(100)).await;
    // The other one has been silent since it joined.
    store.heartbeat(alive(one, &[]), at(100), LEASE, END_RULES).await.unwrap();
    assert_eq!(run_one(store, one, CouldNotRun, at(100)).await, id);

    // Once it is back, the job is for it.
    tick(store, at(200)).await;
    for worker in [one, two] {
        store.heartbeat(alive(worker, &[]), at(200), LEASE, END_RULES).await.unwrap();
    }
    assert_eq!(claim(store, one, 1, at(200)).await, []);
    assert_eq!(run_one(store, two, CouldNotRun, at(200)).await, id);

    // When all of them have failed it, anybody may try.
    tick(store, at(300)).await;
    for worker in [one, two] {
        store.heartbeat(alive(worker, &[]), at(300), LEASE, END_RULES).await.unwrap();
    }
    assert_eq!(run_one(store, one, Succeeded, at(300)).await, id);
    assert_eq!(state_of(store, id).await, JobState::Completed);
}

pub(crate) async fn a_worker_failing_three_users_in_a_row_is_set_aside(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    for name in ["ann", "ann", "ben"] {
        submit(store, NewJob { submitter: a_user(name), ..a_job() }).await;
        run_one(store, worker, CommandFailed, at(1)).await;
    }
    // Each of these users is another one, whatever the name.
    let set_aside = store.workers(at(1)).await.unwrap().remove(0);
    assert_eq!(set_aside.sick_since, Some(at(1)));
    submit(store, a_job()).await;
    assert_eq!(claim(store, worker, 1, at(2)).await, []);
}

pub(crate) async fn a_sick_worker_is_released_by_a_person_or_a_restart(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    for restart in [false, true] {
        for _ in 0..3 {
            submit(store, a_job()).await;
            run_one(store, worker, CommandFailed, at(1)).await;
        }
        submit(store, a_job()).await;
        assert_eq!(claim(store, worker, 1, at(2)).await, []);
        if restart {
            let machine = machine("pc", SandboxLevel::L3);
            store.register(worker, machine, Enrolment::Known, at(3), LEASE).await.unwrap();
        } else {
            let released = store.release_worker(worker, at(3)).await.unwrap().value;
            assert_eq!(released.sick_since, None);
        }
        run_one(store, worker, Succeeded, at(4)).await;
    }
}

pub(crate) async fn a_drained_worker_ends_what_it_runs_and_gets_nothing(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let (running, waiting) = (submit(store, a_job()).await, submit(store, a_job()).await);
    let key = claim_one(store, worker, at(1)).await;

    let drained = store.set_draining(worker, true, at(2)).await.unwrap().value;

    assert_eq!((drained.status, drained.running), (WorkerState::Draining, vec![key]));
    let told = store.heartbeat(alive(worker, &[key]), at(2), LEASE, END_RULES).await.unwrap();
    assert!(told.value.drain && told.value.lost.is_empty());
    assert_eq!(claim(store, worker, 1, at(3)).await, []);
    finish(store, worker, key, Succeeded, at(4)).await.unwrap();
    assert_eq!(state_of(store, running).await, JobState::Completed);
    store.set_draining(worker, false, at(5)).await.unwrap();
    assert_eq!(claim_one(store, worker, at(5)).await.job_id, waiting);
}

pub(crate) async fn what_is_known_of_a_waiting_job(store: &Shared) {
    let (one, _two) = two_workers(store).await;
    let (ann, ben) = (a_user("ann"), a_user("ben"));
    for _ in 0..3 {
        submit(store, of(&ann)).await;
        submit(store, of(&ben)).await;
    }
    let high = NewJob { submitter: ben.clone(), ..a_job_with(|request| request.priority = 9) };
    submit(store, high).await;
    claim_one(store, one, at(1)).await;
    let last = submit(store, of(&ann)).await;

    let facts = store.wait_facts(last, at(2)).await.unwrap();

    assert!(facts.ready);
    assert_eq!(facts.own_ahead, 3);
    assert_eq!(facts.higher_priority, 0, "the one of high priority runs");
    assert_eq!(facts.others.len(), 1);
    assert_eq!(facts.others[0].2, 3);
    assert_eq!(facts.workers.len(), 2);
    assert_eq!(facts.failed_on, []);
}

pub(crate) async fn x4_no_more_jobs_of_a_user_wait_than_may(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let (ann, ben) = (a_user("ann"), a_user("ben"));
    let new = |user: &Submitter, count: Option<u32>| NewJob {
        submitter: user.clone(),
        waiting_max: 3,
        ..a_job_with(|request| request.count = count)
    };
    let is_full = async |job: NewJob| match store.create_job(job, at(0)).await {
        Ok(_) => false,
        Err(StoreError::QueueFull { waiting_max: 3 }) => true,
        Err(other) => panic!("{other:?}"),
    };
    let single = submit(store, new(&ann, None)).await;
    let array = submit(store, new(&ann, Some(2))).await;
    assert!(is_full(new(&ann, None)).await, "the jobs of an array count one by one");
    assert!(is_full(new(&ann, Some(2))).await);
    assert!(!is_full(new(&ben, Some(3))).await, "others are not concerned");
    assert_eq!(store.jobs(&JobFilter::default()).await.unwrap().counts.pending, 6);

    // What runs does not wait, and what comes back does.
    let running = claim(store, worker, 1, at(1)).await[0].key();
    assert_eq!(running.job_id, single);
    let next = submit(store, new(&ann, None)).await;
    finish(store, worker, running, AttemptEnding::GivenBack, at(2)).await.unwrap();
    assert!(is_full(new(&ann, None)).await);
    store.cancel(next, at(3)).await.unwrap();
    assert!(is_full(new(&ann, None)).await, "three wait as before");
    store.cancel(array, at(3)).await.unwrap();
    assert!(!is_full(new(&ann, Some(2))).await);

    let ended = store.resubmit(next, JobId::generate(), ann, 3, at(4)).await;
    assert!(matches!(ended, Err(StoreError::QueueFull { .. })), "{ended:?}");
    store.resubmit(array, JobId::generate(), a_user("cat"), 3, at(4)).await.unwrap();
}
