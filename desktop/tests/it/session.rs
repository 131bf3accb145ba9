//! Signing in at a real coordinator, and what is kept of it.

use std::os::unix::fs::PermissionsExt as _;

use lull_desktop::session::{Credentials, Session};
use lull_shared::{credentials::Role, problem::ProblemKind};
use lull_worker::Membership;

use crate::pool::Pool;

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_is_kept_for_this_account_alone_until_the_sign_out() {
    let pool = Pool::start().await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config/login.json");
    let session = Session::open(file.clone());
    let refused = session.client().unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Unauthenticated);

    let membership = membership(&pool, home.path()).await;
    assert_eq!(session.info(membership.clone()).await.url, pool.url, "the address to offer");
    let info = session.sign_in(credentials(&pool, None).await, membership).await.unwrap();
    assert!(info.signed_in);
    assert_eq!((info.url.as_str(), info.name.as_str()), (pool.url.as_str(), "ada"));
    assert_eq!(info.role, Role::Submitter);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let later = Session::open(file.clone());
    assert_eq!(later.info(None).await, info);
    later.sign_out();
    assert!(!file.exists());
    assert!(!Session::open(file).info(None).await.signed_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fingerprint_from_a_join_code_is_enough_to_trust_the_coordinator() {
    let pool = Pool::start().await;
    let home = tempfile::tempdir().unwrap();
    let code = pool.admin(&["join-code"]).await;
    let fingerprint = code.split('.').nth(1).unwrap().to_owned();
    let session = Session::open(home.path().join("login.json"));
    let info = session.sign_in(credentials(&pool, Some(fingerprint)).await, None).await.unwrap();
    assert!(info.signed_in);

    let other = Session::open(home.path().join("other.json"));
    let wrong = credentials(&pool, Some("A".repeat(43))).await;
    assert_eq!(other.sign_in(wrong, None).await.unwrap_err().kind, ProblemKind::Unreachable);
    let damaged = credentials(&pool, Some("short".to_owned())).await;
    assert_eq!(other.sign_in(damaged, None).await.unwrap_err().kind, ProblemKind::Invalid);
    let nobody_vouches = credentials(&pool, None).await;
    assert_eq!(
        other.sign_in(nobody_vouches, None).await.unwrap_err().kind,
        ProblemKind::Unreachable
    );
    assert!(!home.path().join("other.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_means_signing_in_again() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("login.json");
    std::fs::write(&file, "{\"url\": \"https://pool.exam").unwrap();
    assert!(!Session::open(file).info(None).await.signed_in);
}

async fn membership(pool: &Pool, home: &std::path::Path) -> Option<Membership> {
    let worker_dir = home.join("worker");
    Some(pool.take_in(&worker_dir).await)
}

async fn credentials(pool: &Pool, fingerprint: Option<String>) -> Credentials {
    let token = pool.admin(&["token", "--role", "submitter", "--name", "ada"]).await;
    Credentials { url: pool.url.clone(), token: token.into(), fingerprint }
}
