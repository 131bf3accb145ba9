//! Cases about output: appended once, kept within its cap, followed in order.

use lull_shared::{
    ids::{JobId, WorkerId},
    jobs::{AttemptEnding, JobState, LeaseKey},
    output::Stream::{Stderr, Stdout},
    workers::SandboxLevel,
};

use super::{
    Shared, a_job, a_worker, append, at, claim_one, expire, finish, report, submit, two_workers,
};
use crate::{
    model::{JobEvent, OutputCursor, OutputPiece},
    scheduler::END_RULES,
    store::{HEAD_BYTES, SHOWN_BYTES, StoreError, TAIL_BYTES},
};

const ALL: usize = usize::MAX;
const MIB: u64 = 1024 * 1024;

pub(crate) async fn l2_output_is_kept_as_it_came(store: &Shared) {
    let (id, worker, key) = running(store).await;
    let raw = b"\x00\xff\x1b[31m no newline";
    assert_eq!(append(store, worker, key, Stdout, 0, raw).await.unwrap(), 18);
    assert_eq!(append(store, worker, key, Stderr, 0, b"oops").await.unwrap(), 4);

    let page = store.output(id, None, Stdout, 0).await.unwrap();
    assert_eq!((&page.bytes[..], page.attempt, page.dropped), (&raw[..], 1, 0));
    assert_eq!(&store.output(id, Some(1), Stderr, 1).await.unwrap().bytes[..], b"ops");
    assert!(store.output(id, None, Stdout, 18).await.unwrap().bytes.is_empty());
    let none = store.output(id, Some(2), Stdout, 0).await;
    assert!(matches!(none, Err(StoreError::NotFound("attempt"))), "{none:?}");
}

pub(crate) async fn bytes_that_are_stored_already_are_skipped(store: &Shared) {
    let (id, worker, key) = running(store).await;
    append(store, worker, key, Stdout, 0, b"hello").await.unwrap();
    assert_eq!(append(store, worker, key, Stdout, 0, b"hello").await.unwrap(), 5);
    assert_eq!(append(store, worker, key, Stdout, 3, b"lo world").await.unwrap(), 11);
    assert_eq!(append(store, worker, key, Stdout, 1, b"el").await.unwrap(), 11);
    assert_eq!(&store.output(id, None, Stdout, 0).await.unwrap().bytes[..], b"hello world");
}

pub(crate) async fn a_gap_in_the_output_is_refused(store: &Shared) {
    let (_, worker, key) = running(store).await;
    append(store, worker, key, Stdout, 0, b"hello").await.unwrap();
    let gap = append(store, worker, key, Stdout, 6, b"world").await;
    assert!(matches!(gap, Err(StoreError::OffsetMismatch { next: 5 })), "{gap:?}");
    assert_eq!(append(store, worker, key, Stdout, 5, b" ").await.unwrap(), 6);
}

pub(crate) async fn output_of_a_stale_attempt_is_refused(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let id = submit(store, a_job()).await;
    let first = claim_one(store, one, at(0)).await;
    expire(store, at(60)).await;
    claim_one(store, two, at(61)).await;

    let late = append(store, one, first, Stdout, 0, b"late").await;

    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    assert!(store.output(id, Some(1), Stdout, 0).await.unwrap().bytes.is_empty());
}

pub(crate) async fn l1_of_a_long_stream_head_and_tail_are_kept_and_the_rest_is_counted(
    store: &Shared,
) {
    let (id, worker, key) = running(store).await;
    let total = HEAD_BYTES + TAIL_BYTES + 4 * MIB;
    fill(store, worker, key, total).await;

    let mut kept = Vec::new();
    let mut from = 0;
    let mut gaps = Vec::new();
    loop {
        let page = store.output(id, None, Stdout, from).await.unwrap();
        if page.bytes.is_empty() {
            break;
        }
        if page.offset > from {
            gaps.push((from, page.offset));
        }
        kept.push((page.offset, page.next_offset()));
        let expected: Vec<u8> = (page.offset..page.next_offset()).map(byte_at).collect();
        assert!(
            page.bytes[..] == expected[..],
            "bytes at {} are not what was written",
            page.offset
        );
        from = page.next_offset();
    }
    assert_eq!(from, total);
    assert_eq!(gaps.len(), 1, "one gap between head and tail");
    assert_eq!(gaps[0].0, HEAD_BYTES);
    let dropped = gaps[0].1 - gaps[0].0;
    assert!((4 * MIB..6 * MIB).contains(&dropped), "{dropped}");
    assert_eq!(store.output(id, None, Stdout, 0).await.unwrap().dropped, dropped);
}

pub(crate) async fn a_follower_that_fell_behind_learns_what_it_missed(store: &Shared) {
    let (id, worker, key) = running(store).await;
    fill(store, worker, key, 3 * MIB).await;
    let seen = all_events(store, id, OutputCursor::default()).await;
    let behind = seen.last().unwrap().0;
    assert_eq!(behind.stdout, 3 * MIB);
    assert!(!seen.iter().any(|(_, event)| matches!(event, JobEvent::Dropped { .. })));

    fill_from(store, worker, key, 3 * MIB, HEAD_BYTES + TAIL_BYTES + 6 * MIB).await;
    let later = store.events(id, behind, 1).await.unwrap();

    let (dropped_at, JobEvent::Dropped { bytes, attempt: 1, stream: Stdout }) = &later[0] else {
        panic!("the first event is {:?}", later[0].1)
    };
    let (_, JobEvent::Output { offset, .. }) = &later[1] else { panic!("output follows") };
    assert_eq!(*offset, 3 * MIB + bytes);
    // Resuming after the notice gives the bytes and no second notice.
    let resumed = store.events(id, *dropped_at, 1).await.unwrap();
    assert!(matches!(&resumed[0].1, JobEvent::Output { offset: first, .. } if first == offset));
}

pub(crate) async fn a_follower_sees_everything_in_the_order_it_happened(store: &Shared) {
    let (one, two) = two_workers(store).await;
    let id = submit(store, a_job()).await;
    let first = claim_one(store, one, at(0)).await;
    append(store, one, first, Stdout, 0, b"a").await.unwrap();
    append(store, one, first, Stderr, 0, b"b").await.unwrap();
    append(store, one, first, Stdout, 1, b"c").await.unwrap();
    finish(store, one, first, AttemptEnding::GivenBack, at(2)).await.unwrap();
    let second = claim_one(store, two, at(3)).await;
    append(store, two, second, Stdout, 0, b"d").await.unwrap();
    finish(store, two, second, AttemptEnding::Succeeded, at(4)).await.unwrap();

    let events = all_events(store, id, OutputCursor::default()).await;

    let told: Vec<String> = events.iter().map(|(_, event)| tell(event)).collect();
    assert_eq!(
        told,
        [
            "1 started on one",
            "1 Stdout 0 a",
            "1 Stderr 0 b",
            "1 Stdout 1 c",
            "1 requeued GivenBack",
            "2 started on two",
            "2 Stdout 0 d",
            "ended Completed",
        ]
    );
}

pub(crate) async fn a_follower_goes_on_where_it_was(store: &Shared) {
    let (id, worker, key) = running(store).await;
    append(store, worker, key, Stdout, 0, b"a").await.unwrap();
    append(store, worker, key, Stdout, 1, b"b").await.unwrap();
    finish(store, worker, key, AttemptEnding::Succeeded, at(2)).await.unwrap();
    let events = all_events(store, id, OutputCursor::default()).await;
    for (index, (cursor, _)) in events.iter().enumerate() {
        let rest = all_events(store, id, cursor.to_string().parse().unwrap()).await;
        assert_eq!(rest, events[index + 1..]);
    }
}

pub(crate) async fn a_job_shows_the_end_of_its_output(store: &Shared) {
    let (id, worker, key) = running(store).await;
    assert_eq!(store.job(id).await.unwrap().stdout, None);
    append(store, worker, key, Stderr, 0, b"caf\xc3\xa9 \xff").await.unwrap();
    fill(store, worker, key, 3 * SHOWN_BYTES as u64).await;

    let job = store.job(id).await.unwrap();

    assert_eq!(job.stderr.as_deref(), Some("café \u{fffd}"));
    assert_eq!(job.stdout.unwrap().len(), SHOWN_BYTES);
}

pub(crate) async fn the_last_output_comes_with_the_result(store: &Shared) {
    let (id, worker, key) = running(store).await;
    append(store, worker, key, Stdout, 0, b"hel").await.unwrap();
    let mut done = report(worker, key, AttemptEnding::Succeeded);
    done.output = vec![
        OutputPiece { stream: Stdout, offset: 1, bytes: "ello".into() },
        OutputPiece { stream: Stderr, offset: 0, bytes: "!".into() },
    ];

    store.finish(done, at(2), END_RULES).await.unwrap();

    let job = store.job(id).await.unwrap();
    assert_eq!((job.stdout.as_deref(), job.stderr.as_deref()), (Some("hello"), Some("!")));
}

pub(crate) async fn a_result_whose_output_has_a_gap_changes_nothing(store: &Shared) {
    let (id, worker, key) = running(store).await;
    let mut done = report(worker, key, AttemptEnding::Succeeded);
    done.output = vec![
        OutputPiece { stream: Stderr, offset: 0, bytes: "kept?".into() },
        OutputPiece { stream: Stdout, offset: 7, bytes: "gap".into() },
    ];

    let refused = store.finish(done, at(2), END_RULES).await;

    assert!(matches!(refused, Err(StoreError::OffsetMismatch { next: 0 })), "{refused:?}");
    let job = store.job(id).await.unwrap();
    assert_eq!((job.status, job.stderr), (JobState::Running, None));
}

async fn running(store: &Shared) -> (JobId, WorkerId, LeaseKey) {
    let worker = a_worker(store, "pc", SandboxLevel::L3).await;
    let id = submit(store, a_job()).await;
    (id, worker, claim_one(store, worker, at(0)).await)
}

/// What the byte at this offset of a filled stream is: text that does not repeat in step with chunks.
fn byte_at(offset: u64) -> u8 {
    b'a' + u8::try_from(offset % 23).unwrap_or_default()
}

async fn fill(store: &Shared, worker: WorkerId, key: LeaseKey, until: u64) {
    fill_from(store, worker, key, 0, until).await;
}

async fn fill_from(store: &Shared, worker: WorkerId, key: LeaseKey, from: u64, until: u64) {
    let mut offset = from;
    while offset < until {
        let end = until.min(offset + 700_000);
        let bytes: Vec<u8> = (offset..end).map(byte_at).collect();
        offset = append(store, worker, key, Stdout, offset, &bytes).await.unwrap();
    }
}

async fn all_events(
    store: &Shared,
    id: JobId,
    from: OutputCursor,
) -> Vec<(OutputCursor, JobEvent)> {
    store.events(id, from, ALL).await.unwrap()
}

fn tell(event: &JobEvent) -> String {
    match event {
        JobEvent::Started { attempt, hostname } => format!("{attempt} started on {hostname}"),
        JobEvent::Output { attempt, stream, offset, bytes } => {
            format!("{attempt} {stream:?} {offset} {}", String::from_utf8_lossy(bytes))
        }
        JobEvent::Dropped { attempt, stream, bytes } => {
            format!("{attempt} {stream:?} dropped {bytes}")
        }
        JobEvent::Requeued { attempt, ending, .. } => format!("{attempt} requeued {ending:?}"),
        JobEvent::Ended { job } => format!("ended {:?}", job.status),
    }
}
