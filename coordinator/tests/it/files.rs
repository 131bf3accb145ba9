//! Files over HTTP: uploaded once, refused when damaged, downloaded as a stranger's bytes.

use std::{fs, path::Path};

use lull_shared::{
    credentials::Role,
    files::{DIGEST_HEADER, StoredFile},
    ids::Digest,
    jobs::CreateJob,
    problem::ProblemKind,
};
use reqwest::{Method, RequestBuilder};
use secrecy::ExposeSecret as _;

use crate::support::{TestCoordinator, eventually, problem};

fn files_in(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files_in(&path) } else { 1 })
        .sum()
}

fn stored_files(coordinator: &TestCoordinator) -> usize {
    files_in(&coordinator.data.path().join("blobs"))
        + files_in(&coordinator.data.path().join("staging"))
}

async fn signed(coordinator: &TestCoordinator, method: Method, path: &str) -> RequestBuilder {
    let token = coordinator.token(Role::Submitter).await;
    coordinator.request(method, path).bearer_auth(token.expose_secret())
}

async fn uploaded(coordinator: &TestCoordinator, bytes: &'static [u8]) -> Digest {
    let digest = Digest::of(bytes);
    let reply = signed(coordinator, Method::POST, "/api/files/upload")
        .await
        .header(DIGEST_HEADER, digest.to_string())
        .body(bytes)
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    let stored: StoredFile = reply.json().await.unwrap();
    assert_eq!(stored, StoredFile { digest, size_bytes: bytes.len() as u64 });
    digest
}

#[tokio::test]
async fn a_file_goes_up_once_and_comes_down_the_same() {
    let coordinator = TestCoordinator::start().await;
    let client = coordinator.client(Role::Submitter).await;
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    fs::write(&up, &bytes).unwrap();
    let digest = Digest::of(&bytes);

    assert_eq!(client.has_file(digest).await.unwrap(), None);
    client.upload_file(&up, digest, |_, _| {}).await.unwrap();
    assert_eq!(client.has_file(digest).await.unwrap(), Some(5_000_000));
    client.upload_file(&up, digest, |_, _| {}).await.unwrap();
    assert_eq!(stored_files(&coordinator), 1);
    client.download_to(digest, &down, |_, _| {}).await.unwrap();
    assert_eq!(fs::read(&down).unwrap(), bytes);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_file_that_is_there_is_not_read_again() {
    let coordinator = TestCoordinator::start().await;
    let digest = uploaded(&coordinator, b"once").await;
    let reply = signed(&coordinator, Method::POST, "/api/files/upload")
        .await
        .header(DIGEST_HEADER, digest.to_string())
        .body("not even the same bytes")
        .send()
        .await
        .unwrap();
    assert_eq!(reply.json::<StoredFile>().await.unwrap(), StoredFile { digest, size_bytes: 4 });
}

#[tokio::test]
async fn a_damaged_upload_is_refused_and_nothing_is_kept() {
    let coordinator = TestCoordinator::start().await;
    let announced = Digest::of(b"what was announced");
    let reply = signed(&coordinator, Method::POST, "/api/files/upload")
        .await
        .header(DIGEST_HEADER, announced.to_string())
        .body("what arrived")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(reply).await.kind, ProblemKind::DigestMismatch);
    assert_eq!(stored_files(&coordinator), 0);
    let client = coordinator.client(Role::Viewer).await;
    assert_eq!(client.has_file(announced).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_larger_than_allowed_is_refused_and_nothing_is_kept() {
    let coordinator = TestCoordinator::start_with(|config| config.upload_bytes_max = 1000).await;
    let bytes = vec![7; 100_000];
    let known = signed(&coordinator, Method::POST, "/api/files/upload")
        .await
        .header(DIGEST_HEADER, Digest::of(&bytes).to_string())
        .body(bytes.clone());
    assert_eq!(problem(known.send().await.unwrap()).await.kind, ProblemKind::TooLarge);

    let pieces =
        futures_util::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![7; 1000])));
    let unknown = signed(&coordinator, Method::POST, "/api/files/upload")
        .await
        .header(DIGEST_HEADER, Digest::of(&bytes).to_string())
        .body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(problem(unknown.send().await.unwrap()).await.kind, ProblemKind::TooLarge);
    eventually("what arrived is gone", async || (stored_files(&coordinator) == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn a_part_of_a_file_can_be_asked_for() {
    let coordinator = TestCoordinator::start().await;
    let digest = uploaded(&coordinator, b"0123456789").await;
    let path = format!("/api/files/{digest}");
    let part = signed(&coordinator, Method::GET, &path).await.header("range", "bytes=2-4");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(part.headers()["content-length"], "3");
    assert_eq!(part.text().await.unwrap(), "234");

    let beyond = signed(&coordinator, Method::GET, &path).await.header("range", "bytes=10-");
    let beyond = beyond.send().await.unwrap();
    assert_eq!(beyond.headers()["content-range"], "bytes */10");
    assert_eq!(problem(beyond).await.status, 416);
}

#[tokio::test]
async fn f3_a_download_is_a_stranger_s_bytes_whatever_it_holds() {
    let coordinator = TestCoordinator::start().await;
    let digest = uploaded(&coordinator, b"<script>alert(1)</script>").await;
    let path = format!("/api/files/{digest}?name=..%2Fevil%22%0D%0Ax-evil:%201.html");
    let reply = signed(&coordinator, Method::GET, &path).await.send().await.unwrap();
    let headers = reply.headers();
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["content-security-policy"], "sandbox; default-src 'none'");
    let offered = headers["content-disposition"].to_str().unwrap();
    assert!(offered.starts_with("attachment; filename=\""), "{offered}");
    assert!(!offered.contains('/') && !offered.contains("evil\""), "{offered}");
    assert!(headers.get("x-evil").is_none());
}

#[tokio::test]
async fn a_worker_reads_only_the_file_of_an_attempt_it_holds() {
    let coordinator = TestCoordinator::start().await;
    let zip = zip_of_nothing();
    let digest = uploaded(&coordinator, zip).await;
    let worker = coordinator.worker("w").await;
    let refused = worker.client.download_file(digest).await.unwrap_err();
    assert_eq!(refused.kind(), ProblemKind::Forbidden);

    let user = coordinator.client(Role::Submitter).await;
    let job =
        CreateJob { command: "ls".to_owned(), file_digest: Some(digest), ..CreateJob::default() };
    user.create_job(&job).await.unwrap();
    worker.claim(5).await.expect("the queue has one job");
    let mut download = worker.client.download_file(digest).await.unwrap();
    assert_eq!(download.chunk().await.unwrap().unwrap(), zip);
}

/// An archive without entries.
fn zip_of_nothing() -> &'static [u8] {
    b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
}
