//! The conformance suite on SQLite, and what only SQLite promises.

use std::{path::Path, sync::Arc};

use super::SqliteStore;
use crate::store::{
    Store, StoreError, StoreRead as _,
    conformance::{Shared, a_job, a_worker, at, claim_one, submit},
};
use lull_shared::{
    jobs::{JobFilter, JobState},
    workers::SandboxLevel,
};

crate::store::conformance::conformance_suite!(crate::store::sqlite::tests::open);

fn open(folder: &Path) -> Shared {
    Arc::new(SqliteStore::open(&folder.join("lull.db")).unwrap())
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let worker = a_worker(&store, "pc", SandboxLevel::L3).await;
    let (running, waiting) = (submit(&store, a_job()).await, submit(&store, a_job()).await);
    let key = claim_one(&store, worker, at(1)).await;
    let before = store.jobs(&JobFilter::default()).await.unwrap();
    drop(store);

    let store = open(folder.path());

    assert_eq!(store.jobs(&JobFilter::default()).await.unwrap(), before);
    assert_eq!(store.job(running).await.unwrap().status, JobState::Running);
    assert_eq!(store.job(waiting).await.unwrap().status, JobState::Pending);
    assert_eq!(store.workers(at(1)).await.unwrap()[0].running, [key]);
}

#[tokio::test]
async fn a_second_process_writes_while_the_first_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (server, subcommand) = (open(folder.path()), open(folder.path()));
    let job = submit(&subcommand, a_job()).await;
    assert_eq!(server.job(job).await.unwrap().status, JobState::Pending);
    server.cancel(job, at(1)).await.unwrap();
    assert_eq!(subcommand.job(job).await.unwrap().status, JobState::Cancelled);
}

#[tokio::test]
async fn a_write_that_fails_or_panics_spoils_no_other_of_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("lull.db")).unwrap();
    let insert = "insert into blobs (digest, size_bytes, used_at) values (?1, 1, 0)";
    let writes = (0..30_u8).map(|number| {
        store.writer.write(move |db| {
            db.execute(insert, [[number; 32]])?;
            match number % 3 {
                0 => Err(StoreError::LeaseLost),
                1 => panic!("a defect in a write"),
                _ => Ok(()),
            }
        })
    });

    let done = futures_util::future::join_all(writes).await;

    for (number, result) in done.iter().enumerate() {
        match number % 3 {
            0 => assert!(matches!(result, Err(StoreError::LeaseLost)), "{result:?}"),
            1 => assert!(matches!(result, Err(StoreError::Unreachable(_))), "{result:?}"),
            _ => assert!(result.is_ok(), "{result:?}"),
        }
    }
    let kept = store
        .readers
        .read(|db| Ok(db.query_row("select count(*) from blobs", [], |row| row.get::<_, u32>(0))?));
    assert_eq!(kept.await.unwrap(), 10);
}

#[tokio::test]
async fn t16_a_full_disk_refuses_writes_and_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("lull.db")).unwrap();
    let shared: Shared = Arc::new(store);
    let job = submit(&shared, a_job()).await;
    drop(shared);
    let store = SqliteStore::open(&folder.path().join("lull.db")).unwrap();
    let full = "pragma max_page_count = 1";
    store.writer.write(|db| Ok(db.query_row(full, [], |_| Ok(()))?)).await.unwrap();

    let mut large = a_job();
    large.request.command = "x".repeat(1 << 20);
    let refused = store.create_job(large, at(1)).await;

    assert!(matches!(refused, Err(StoreError::DiskFull(_))), "{refused:?}");
    assert_eq!(store.job(job).await.unwrap().status, JobState::Pending);
    let room = "pragma max_page_count = 1000000";
    store.writer.write(|db| Ok(db.query_row(room, [], |_| Ok(()))?)).await.unwrap();
    store.create_job(a_job(), at(2)).await.unwrap();
}

#[tokio::test]
async fn c3_a_store_that_cannot_write_is_not_ready_until_it_can_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("lull.db")).unwrap();
    store.ready().await.unwrap();
    let execute = async |sql: &'static str| {
        store.writer.write(|db| Ok(db.execute_batch(sql)?)).await.unwrap();
    };
    execute(
        "create temp trigger no_jobs before insert on jobs begin select raise(abort, 'gone'); end;
         create temp trigger no_turns before update on turns begin select raise(abort, 'gone'); end;",
    )
    .await;
    let refused = store.create_job(a_job(), at(1)).await;
    assert!(matches!(refused, Err(StoreError::Unreachable(_))), "{refused:?}");
    for _ in 0..2 {
        assert!(matches!(store.ready().await, Err(StoreError::Unreachable(_))));
    }
    execute("drop trigger no_jobs; drop trigger no_turns").await;
    store.ready().await.unwrap();
    store.create_job(a_job(), at(2)).await.unwrap();
}

#[tokio::test]
async fn the_log_is_copied_back_while_writes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for _ in 0..40 {
        let mut large = a_job();
        large.request.command = "x".repeat(1 << 20);
        store.create_job(large, at(0)).await.unwrap();
    }
    let log = std::fs::metadata(folder.path().join("lull.db-wal")).unwrap().len();
    assert!(log < 16 << 20, "the log has {log} bytes after 40 MiB of writes");
}
