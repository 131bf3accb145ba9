//! What any `Store` must do. Each case runs against every backend.

use std::{sync::Arc, time::Duration};

use lull_shared::{
    credentials::{BearerToken, JoinCode, SecretHash, SpkiPin},
    ids::{JobId, TokenId, WorkerId},
    jobs::{Assignment, AttemptEnding, CreateJob, JobState, LeaseKey, Network},
    output::Stream,
    time::Timestamp,
    workers::{SandboxLevel, WorkerState},
};
use secrecy::SecretString;

use super::{Store, StoreError};
use crate::{
    model::{
        EndedAttempt, Enrolment, Idempotency, JoinCodeRecord, Machine, NewJob, Offer, OutputPiece,
        Recorded, Report, SignOfLife, Submitter,
    },
    scheduler::{CLAIM_RULES, END_RULES},
};

pub(crate) mod arrays;
pub(crate) mod keeping;
pub(crate) mod lives;
pub(crate) mod machine;
pub(crate) mod order;
pub(crate) mod output;
pub(crate) mod registry;
pub(crate) mod terms;

macro_rules! conformance_suite {
    (@cases $open:path; $($noun:ident { $($case:ident)+ })+) => {
        $(mod $noun {
            $(
                #[tokio::test]
                async fn $case() {
                    let folder = tempfile::tempdir().unwrap();
                    let store = $open(folder.path());
                    $crate::store::conformance::$noun::$case(&store).await;
                }
            )+
        })+
    };
    ($open:path) => {
        $crate::store::conformance::conformance_suite! { @cases $open;
            lives {
                a_job_is_claimed_once
                jobs_are_claimed_in_the_order_they_came
                a_worker_gets_no_job_that_asks_for_more_isolation
                a_claim_takes_as_many_as_asked_for
                an_unknown_worker_claims_nothing
                an_assignment_carries_all_it_takes_to_run
                a_job_runs_to_its_end
                a_failed_command_fails_its_job
                s2_a_stale_attempt_is_fenced_off
                s2_a_stale_attempt_of_the_same_worker_is_fenced_off
                s2_another_workers_attempt_is_fenced_off
                s3_the_same_report_again_gets_the_same_reply
                another_report_of_an_ended_attempt_is_refused
                a_lease_runs_out_only_when_its_time_has_come
                s1_a_late_result_counts_while_no_newer_attempt_has_begun
                a_late_heartbeat_takes_the_job_back
                a_late_result_of_a_job_that_failed_for_good_is_refused
                a_job_that_loses_too_many_workers_fails
                a_job_is_tried_again_after_its_backoff
                a_job_nobody_can_run_fails_in_the_end
                a_waiting_job_is_cancelled_at_once
                a_running_job_is_cancelled_by_its_worker
                a_cancelled_job_of_a_lost_worker_is_cancelled
                an_ended_job_cannot_be_cancelled
                a_claim_that_was_never_heard_of_is_put_back
                s4_an_idempotency_key_names_one_submission
                an_idempotency_key_is_its_tokens_own
                a_job_waits_for_its_file
                artifacts_are_the_results_of_the_attempt
                an_artifact_that_was_not_uploaded_is_refused
                claimable_jobs_are_counted_for_each_level
            }
            terms {
                a_failed_command_is_tried_again_as_often_as_asked_for
                a_lost_worker_spends_no_retry
                a_job_that_waited_too_long_fails
                a_job_that_began_in_time_is_not_failed_for_waiting_later
                a_held_job_waits_until_it_is_released
                a_running_job_cannot_be_held
                a_job_runs_after_those_it_waits_for
                a_job_fails_when_one_it_waits_for_does
                a_chain_of_waiting_jobs_fails_link_by_link
                a_job_after_ended_ones_starts_or_fails_at_once
                a_job_after_an_unknown_one_is_refused
                many_waiting_jobs_are_told_in_steps
                s1_a_clock_that_was_set_back_keeps_nothing_waiting
                an_ended_job_is_submitted_again
                a_job_that_has_not_ended_is_not_submitted_again
                every_change_is_told
                the_reply_to_a_submission_is_what_the_store_keeps
            }
            order {
                a_higher_priority_goes_first
                users_take_turns_whatever_they_have_waiting
                a_weight_gives_more_turns
                a_worker_gets_only_what_it_meets
                jobs_nobody_can_run_hide_nothing
                a_worker_is_not_given_again_what_it_failed_while_another_can
                a_worker_gets_back_what_it_failed_when_no_other_can
                a_worker_failing_three_users_in_a_row_is_set_aside
                a_sick_worker_is_released_by_a_person_or_a_restart
                a_drained_worker_ends_what_it_runs_and_gets_nothing
                what_is_known_of_a_waiting_job
                x4_no_more_jobs_of_a_user_wait_than_may
            }
            arrays {
                an_array_hands_out_its_jobs_one_by_one
                a_job_of_an_array_finds_its_number_and_item
                an_array_ends_with_its_last_job
                a_failed_job_fails_its_array
                a_cancelled_array_hands_out_nothing_more
                an_array_is_held_and_released
                an_array_shares_turns_with_others
                a_job_waits_for_a_whole_array
                an_array_is_listed_as_one
                a_huge_array_is_accepted_and_cancelled_at_once
                a_job_of_an_array_is_tried_again_and_counted_once
                an_array_is_submitted_again
                a_late_array_fails_what_was_not_begun
            }
            keeping {
                ended_jobs_are_kept_for_their_time
                no_more_ended_jobs_are_kept_than_wanted
                an_array_goes_with_all_its_jobs_step_by_step
                what_an_ended_job_shares_with_another_stays
                blobs_are_kept_while_something_refers_to_them
            }
            output {
                l2_output_is_kept_as_it_came
                bytes_that_are_stored_already_are_skipped
                a_gap_in_the_output_is_refused
                output_of_a_stale_attempt_is_refused
                l1_of_a_long_stream_head_and_tail_are_kept_and_the_rest_is_counted
                a_follower_that_fell_behind_learns_what_it_missed
                a_follower_sees_everything_in_the_order_it_happened
                a_follower_goes_on_where_it_was
                a_job_shows_the_end_of_its_output
                the_last_output_comes_with_the_result
                a_result_whose_output_has_a_gap_changes_nothing
            }
            registry {
                a_join_code_admits_as_many_workers_as_it_has_uses
                an_enrolment_sent_again_spends_no_use
                another_secret_for_a_known_worker_is_refused
                a5_a_join_code_that_expired_or_is_wrong_is_refused
                a_silent_worker_is_offline
                a_heartbeat_tells_how_the_worker_is
                a_heartbeat_renews_what_it_names
                a_worker_that_says_goodbye_gives_its_jobs_back
                a_worker_that_starts_anew_keeps_only_what_it_names
                a_worker_reads_the_file_of_the_job_it_runs_only
                a_token_is_found_by_its_id
                jobs_are_listed_page_by_page
                jobs_are_listed_by_state_and_worker
                every_state_is_counted
            }
        }
    };
}
pub(crate) use conformance_suite;

/// The store as the cases see it.
pub(crate) type Shared = Arc<dyn Store>;

pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) const fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + secs * 1000)
}

pub(crate) fn a_job() -> NewJob {
    a_job_with(|_| {})
}

/// A job of a user of its own that asks for something special.
pub(crate) fn a_job_with(ask: impl FnOnce(&mut CreateJob)) -> NewJob {
    let mut request = CreateJob {
        command: "make\nmake test".to_owned(),
        env: [("LEVEL".to_owned(), "9".to_owned())].into(),
        outputs: vec!["out/**".to_owned()],
        ..CreateJob::default()
    };
    ask(&mut request);
    NewJob {
        id: JobId::generate(),
        name: "make".to_owned(),
        request,
        submitter: a_user("ann"),
        idempotency: None,
        waiting_max: u64::MAX,
    }
}

pub(crate) fn a_user(name: &str) -> Submitter {
    Submitter { token_id: TokenId::generate(), name: name.to_owned(), weight: 1 }
}

/// A job that asks for this much isolation.
pub(crate) fn isolated(level: SandboxLevel) -> NewJob {
    a_job_with(|request| request.requirements.min_sandbox = level)
}

pub(crate) fn with_key(key: &str, body: u8, token_id: TokenId) -> NewJob {
    NewJob {
        idempotency: Some(Idempotency { key: key.to_owned(), body_hash: [body; 32] }),
        submitter: Submitter { token_id, ..a_user("ann") },
        ..a_job()
    }
}

pub(crate) async fn submit(store: &Shared, job: NewJob) -> JobId {
    store.create_job(job, at(0)).await.unwrap().value.job.job_id
}

pub(crate) fn machine(hostname: &str, sandbox_level: SandboxLevel) -> Machine {
    Machine {
        hostname: hostname.to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        cpu_count: 8,
        memory_bytes: 16 << 30,
        version: "0.1.0".to_owned(),
        slots: 2,
        sandbox_level,
        labels: ["blender".to_owned()].into(),
        network: Network::None,
    }
}

/// A join code in the store, and how a worker shows it.
pub(crate) async fn a_join_code(store: &Shared, uses: u32, expires_at: Timestamp) -> JoinCode {
    let code = JoinCode::generate(SpkiPin([1; 32]), vec!["localhost:7700".to_owned()]);
    let record = JoinCodeRecord {
        id: code.id,
        secret: SecretHash::of(&code.secret),
        uses,
        used: 0,
        created_at: at(0),
        expires_at,
        last_used_at: None,
    };
    store.add_join_code(record).await.unwrap();
    code
}

pub(crate) fn join_with(code: &JoinCode, worker_secret: SecretString) -> Enrolment {
    Enrolment::Join { code: code.id, code_secret: code.secret.clone(), worker_secret }
}

pub(crate) fn a_secret() -> SecretString {
    BearerToken::generate_api().secret().clone()
}

pub(crate) async fn a_worker(store: &Shared, hostname: &str, level: SandboxLevel) -> WorkerId {
    let (id, code) = (WorkerId::generate(), a_join_code(store, 1, at(1000)).await);
    store
        .register(id, machine(hostname, level), join_with(&code, a_secret()), at(0), LEASE)
        .await
        .unwrap();
    id
}

/// Two workers that can run anything.
pub(crate) async fn two_workers(store: &Shared) -> (WorkerId, WorkerId) {
    (a_worker(store, "one", SandboxLevel::L3).await, a_worker(store, "two", SandboxLevel::L3).await)
}

pub(crate) async fn claim(
    store: &Shared,
    worker: WorkerId,
    max: u32,
    now: Timestamp,
) -> Vec<Assignment> {
    store.claim(Offer { worker, max }, CLAIM_RULES, now, LEASE).await.unwrap().value.jobs
}

/// Claims the one job that there is to claim.
pub(crate) async fn claim_one(store: &Shared, worker: WorkerId, now: Timestamp) -> LeaseKey {
    let jobs = claim(store, worker, 1, now).await;
    jobs.first().expect("there is a job to claim").key()
}

pub(crate) fn report(worker: WorkerId, key: LeaseKey, ending: AttemptEnding) -> Report {
    let exit_code = match ending {
        AttemptEnding::Succeeded => Some(0),
        AttemptEnding::CommandFailed => Some(3),
        AttemptEnding::TimedOut
        | AttemptEnding::Refused
        | AttemptEnding::CouldNotRun
        | AttemptEnding::GivenBack
        | AttemptEnding::WorkerLost
        | AttemptEnding::Cancelled => None,
    };
    Report {
        key,
        worker,
        ending,
        exit_code,
        error_message: None,
        artifacts: Vec::new(),
        output: Vec::new(),
        hash: [ending as u8; 32],
    }
}

pub(crate) async fn finish(
    store: &Shared,
    worker: WorkerId,
    key: LeaseKey,
    ending: AttemptEnding,
    now: Timestamp,
) -> Result<Recorded, StoreError> {
    store.finish(report(worker, key, ending), now, END_RULES).await.map(|done| done.value)
}

pub(crate) async fn expire(store: &Shared, now: Timestamp) -> Vec<EndedAttempt> {
    store.expire(now, 100, END_RULES).await.unwrap().value
}

pub(crate) async fn append(
    store: &Shared,
    worker: WorkerId,
    key: LeaseKey,
    stream: Stream,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, StoreError> {
    let piece = OutputPiece { stream, offset, bytes: bytes.to_vec().into() };
    let stored = store.append_output(worker, key, piece, at(1), LEASE).await?;
    Ok(stored.value.next_offset)
}

/// Does what falls due by the clock alone.
pub(crate) async fn tick(store: &Shared, now: Timestamp) {
    while store.tick(now, 100).await.unwrap().value {}
}

/// Claims a job and ends it.
pub(crate) async fn run_one(
    store: &Shared,
    worker: WorkerId,
    ending: AttemptEnding,
    now: Timestamp,
) -> JobId {
    let key = claim_one(store, worker, now).await;
    finish(store, worker, key, ending, now).await.unwrap();
    key.job_id
}

pub(crate) async fn state_of(store: &Shared, job: JobId) -> JobState {
    store.job(job).await.unwrap().status
}

pub(crate) fn alive(worker: WorkerId, running: &[LeaseKey]) -> SignOfLife {
    SignOfLife { worker, state: WorkerState::Working, reason: None, running: running.to_vec() }
}
