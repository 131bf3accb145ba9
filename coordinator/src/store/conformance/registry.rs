//! Cases about workers, credentials, blobs and lists.

use lull_shared::{
    credentials::{BearerToken, Role, SecretHash},
    ids::{Digest, JobId, TokenId, WorkerId},
    jobs::{AttemptEnding, JobFilter, JobState},
    workers::{SandboxLevel, SuspendReason, WorkerState},
};

use super::{
    LEASE, Shared, a_job, a_job_with, a_join_code, a_secret, a_worker, alive, at, claim, claim_one,
    expire, finish, join_with, machine, submit, two_workers,
};
use crate::{
    model::{ApiToken, Enrolment, SignOfLife},
    scheduler::END_RULES,
    store::StoreError,
};

pub(crate) async fn a_join_code_admits_as_many_workers_as_it_has_uses(store: &Shared) {
    let code = a_join_code(store, 3, at(100)).await;
    let mut joins = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (store, enrolment) = (store.clone(), join_with(&code, a_secret()));
        let machine = machine(&format!("pc-{number}"), SandboxLevel::L2);
        joins.spawn(async move {
            store.register(WorkerId::generate(), machine, enrolment, at(1), LEASE).await
        });
    }
    let (joined, refused): (Vec<_>, Vec<_>) =
        joins.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((joined.len(), refused.len()), (3, 7));
    assert!(refused.iter().all(|result| matches!(result, Err(StoreError::JoinRefused))));
    assert_eq!(store.workers(at(1)).await.unwrap().len(), 3);
    let record = store.join_code(code.id).await.unwrap().unwrap();
    assert_eq!((record.used, record.last_used_at), (3, Some(at(1))));
}

pub(crate) async fn an_enrolment_sent_again_spends_no_use(store: &Shared) {
    let code = a_join_code(store, 1, at(100)).await;
    let (id, secret) = (WorkerId::generate(), a_secret());
    for now in [1, 2, 500] {
        let machine = machine("pc", SandboxLevel::L2);
        store
            .register(id, machine, join_with(&code, secret.clone()), at(now), LEASE)
            .await
            .unwrap();
    }
    assert_eq!(store.join_code(code.id).await.unwrap().unwrap().used, 1);
    assert!(store.worker_secret(id).await.unwrap().unwrap().matches(&secret));
}

pub(crate) async fn another_secret_for_a_known_worker_is_refused(store: &Shared) {
    let code = a_join_code(store, 5, at(100)).await;
    let (id, secret) = (WorkerId::generate(), a_secret());
    let join = |secret| {
        store.register(id, machine("pc", SandboxLevel::L2), join_with(&code, secret), at(1), LEASE)
    };
    join(secret.clone()).await.unwrap();

    let stolen = join(a_secret()).await;

    assert!(matches!(stolen, Err(StoreError::Conflict(_))), "{stolen:?}");
    assert!(store.worker_secret(id).await.unwrap().unwrap().matches(&secret));
    assert_eq!(store.join_code(code.id).await.unwrap().unwrap().used, 1);
}

pub(crate) async fn a5_a_join_code_that_expired_or_is_wrong_is_refused(store: &Shared) {
    let code = a_join_code(store, 5, at(100)).await;
    let mut wrong = code.clone();
    wrong.secret = a_secret();
    let mut unknown = code.clone();
    unknown.id = lull_shared::ids::JoinCodeId::generate();
    for (code, now) in [(&code, at(100)), (&wrong, at(1)), (&unknown, at(1))] {
        let enrolment = join_with(code, a_secret());
        let machine = machine("pc", SandboxLevel::L2);
        let refused = store.register(WorkerId::generate(), machine, enrolment, now, LEASE).await;
        assert!(matches!(refused, Err(StoreError::JoinRefused)), "{refused:?}");
    }
    let known = store
        .register(
            WorkerId::generate(),
            machine("pc", SandboxLevel::L2),
            Enrolment::Known,
            at(1),
            LEASE,
        )
        .await;
    assert!(matches!(known, Err(StoreError::NotFound("worker"))), "{known:?}");
    assert_eq!(store.workers(at(1)).await.unwrap(), []);
}

pub(crate) async fn a_silent_worker_is_offline(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L2).await;
    let state = async |now| store.workers(now).await.unwrap()[0].status;
    assert_eq!(state(at(30)).await, WorkerState::Ready);
    assert_eq!(state(at(31)).await, WorkerState::Offline);

    assert_eq!(store.mark_silent(at(30)).await.unwrap().value, []);
    assert_eq!(store.mark_silent(at(31)).await.unwrap().value, [worker]);
    assert_eq!(store.mark_silent(at(32)).await.unwrap().value, []);
    store.heartbeat(alive(worker, &[]), at(40), LEASE, END_RULES).await.unwrap();
    assert_eq!(state(at(41)).await, WorkerState::Working);
}

pub(crate) async fn a_heartbeat_tells_how_the_worker_is(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L2).await;
    let life = SignOfLife {
        worker,
        state: WorkerState::Suspended,
        reason: Some(SuspendReason::OwnerActive),
        running: vec![],
    };
    store.heartbeat(life, at(5), LEASE, END_RULES).await.unwrap();

    let shown = store.workers(at(6)).await.unwrap().remove(0);

    assert_eq!(shown.status, WorkerState::Suspended);
    assert_eq!(shown.reason, Some(SuspendReason::OwnerActive));
    assert_eq!(shown.last_heartbeat, at(5));
    assert_eq!((shown.hostname.as_str(), shown.memory_bytes, shown.slots), ("pc", 16 << 30, 2));
    let unknown = alive(WorkerId::generate(), &[]);
    let refused = store.heartbeat(unknown, at(5), LEASE, END_RULES).await;
    assert!(matches!(refused, Err(StoreError::NotFound("worker"))), "{refused:?}");
}

pub(crate) async fn a_heartbeat_renews_what_it_names(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    submit(store, a_job()).await;
    submit(store, a_job()).await;
    let named = claim_one(store, worker, at(0)).await;
    let unnamed = claim_one(store, worker, at(0)).await;

    let renewal = store.heartbeat(alive(worker, &[named]), at(30), LEASE, END_RULES).await;

    assert_eq!(renewal.unwrap().value, crate::model::Renewal::default());
    let keys = |ended: Vec<crate::model::EndedAttempt>| -> Vec<_> {
        ended.into_iter().map(|attempt| attempt.key).collect()
    };
    assert_eq!(keys(expire(store, at(89)).await), [unnamed]);
    assert_eq!(keys(expire(store, at(90)).await), [named]);
}

pub(crate) async fn a_worker_that_says_goodbye_gives_its_jobs_back(store: &Shared) {
    let (one, two) = two_workers(store).await;
    submit(store, a_job()).await;
    submit(store, a_job()).await;
    let to_report = claim_one(store, one, at(0)).await;
    let left = claim_one(store, one, at(0)).await;

    let goodbye = SignOfLife { state: WorkerState::Offline, ..alive(one, &[to_report]) };
    let renewal = store.heartbeat(goodbye, at(5), LEASE, END_RULES).await.unwrap().value;

    assert_eq!(renewal.ended.len(), 1);
    assert_eq!(renewal.ended[0].key, left);
    assert_eq!(store.workers(at(6)).await.unwrap()[0].status, WorkerState::Offline);
    assert_eq!(claim_one(store, two, at(6)).await.job_id, left.job_id);
    finish(store, one, to_report, AttemptEnding::Succeeded, at(7)).await.unwrap();
}

pub(crate) async fn a_worker_that_starts_anew_keeps_only_what_it_names(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    submit(store, a_job()).await;
    submit(store, a_job()).await;
    let spooled = claim_one(store, worker, at(0)).await;
    let forgotten = claim_one(store, worker, at(0)).await;
    let grace = std::time::Duration::from_secs(20);

    let machine = machine("pc", SandboxLevel::L3);
    store.register(worker, machine, Enrolment::Known, at(10), grace).await.unwrap();
    store.heartbeat(alive(worker, &[spooled]), at(11), LEASE, END_RULES).await.unwrap();

    let ended = expire(store, at(30)).await;
    assert_eq!((ended.len(), ended[0].key), (1, forgotten));
}

pub(crate) async fn a_worker_reads_the_file_of_the_job_it_runs_only(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let digest = Digest::of(b"zip");
    store.record_blob(digest, 3, at(0)).await.unwrap();
    submit(store, a_job_with(|request| request.file_digest = Some(digest))).await;
    assert!(!store.may_read_blob(one, digest).await.unwrap());

    let key = claim_one(store, one, at(1)).await;

    assert!(store.may_read_blob(one, digest).await.unwrap());
    assert!(!store.may_read_blob(two, digest).await.unwrap());
    assert!(!store.may_read_blob(one, Digest::of(b"other")).await.unwrap());
    finish(store, one, key, AttemptEnding::Succeeded, at(2)).await.unwrap();
    assert!(!store.may_read_blob(one, digest).await.unwrap());
}

pub(crate) async fn a_token_is_found_by_its_id(store: &Shared) {
    let bearer = BearerToken::generate_api();
    let id = TokenId::generate();
    let token = ApiToken {
        weight: 3,
        id,
        name: "ann".to_owned(),
        role: Role::Submitter,
        secret: SecretHash::of(bearer.secret()),
        created_at: at(0),
        expires_at: Some(at(100)),
        last_used_at: None,
    };
    store.add_token(token).await.unwrap();
    store.touch_token(id, at(7)).await.unwrap();

    let found = store.token(id).await.unwrap().unwrap();

    assert!(found.secret.matches(bearer.secret()));
    assert_eq!((found.name.as_str(), found.role), ("ann", Role::Submitter));
    assert_eq!((found.expires_at, found.last_used_at), (Some(at(100)), Some(at(7))));
    assert!(store.token(TokenId::generate()).await.unwrap().is_none());
}

pub(crate) async fn jobs_are_listed_page_by_page(store: &Shared) {
    let mut submitted = Vec::new();
    for _ in 0..7 {
        submitted.push(submit(store, a_job()).await);
    }
    submitted.reverse();
    let mut listed: Vec<JobId> = Vec::new();
    let mut filter = JobFilter { limit: Some(3), ..JobFilter::default() };
    loop {
        let page = store.jobs(&filter).await.unwrap();
        assert!(page.jobs.len() <= 3);
        listed.extend(page.jobs.iter().map(|job| job.job_id));
        // A job that comes while somebody leafs through the list shifts nothing.
        submit(store, a_job()).await;
        filter.cursor = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(listed, submitted);
    filter.cursor = Some(JobId::generate());
    let unknown = store.jobs(&filter).await;
    assert!(matches!(unknown, Err(StoreError::Invalid(_))), "{unknown:?}");
}

pub(crate) async fn jobs_are_listed_by_state_and_worker(store: &Shared) {
    let (one, two) = two_workers(store).await;
    for _ in 0..3 {
        submit(store, a_job()).await;
    }
    let by_one = claim_one(store, one, at(0)).await;
    let by_two = claim_one(store, two, at(0)).await;
    finish(store, one, by_one, AttemptEnding::Succeeded, at(1)).await.unwrap();
    let list = async |status, worker_id| -> Vec<JobId> {
        let filter = JobFilter { status, worker_id, ..JobFilter::default() };
        store.jobs(&filter).await.unwrap().jobs.iter().map(|job| job.job_id).collect()
    };
    assert_eq!(list(Some(JobState::Running), None).await, [by_two.job_id]);
    assert_eq!(list(None, Some(one)).await, [by_one.job_id]);
    assert_eq!(list(Some(JobState::Running), Some(one)).await, []);
    assert_eq!(list(None, None).await.len(), 3);
}

pub(crate) async fn every_state_is_counted(store: &Shared) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    for _ in 0..6 {
        submit(store, a_job()).await;
    }
    let claimed = claim(store, worker, 4, at(0)).await;
    for (job, ending) in claimed.iter().zip([
        AttemptEnding::Succeeded,
        AttemptEnding::CommandFailed,
        AttemptEnding::GivenBack,
    ]) {
        finish(store, worker, job.key(), ending, at(1)).await.unwrap();
    }
    store.cancel(claimed[2].job_id, at(2)).await.unwrap();

    let counts = store.jobs(&JobFilter::default()).await.unwrap().counts;

    assert_eq!((counts.pending, counts.running), (2, 1));
    assert_eq!((counts.completed, counts.failed, counts.cancelled), (1, 1, 1));
}
