//! What a submission may not be: each refusal is a problem that says why, and nothing is created.

use std::io::Write as _;

use lull_shared::{
    credentials::Role,
    files::DIGEST_HEADER,
    ids::Digest,
    jobs::{CreateJob, JobFilter},
    problem::{Problem, ProblemKind},
};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::support::{TestCoordinator, problem};

async fn submit_json(coordinator: &TestCoordinator, job: &Value) -> Problem {
    let token = coordinator.token(Role::Submitter).await;
    let request = coordinator
        .request(Method::POST, "/api/jobs/create")
        .bearer_auth(token.expose_secret())
        .json(job);
    problem(request.send().await.unwrap()).await
}

async fn jobs(coordinator: &TestCoordinator) -> usize {
    let client = coordinator.client(Role::Viewer).await;
    client.list_jobs(&JobFilter::default()).await.unwrap().jobs.len()
}

#[tokio::test]
async fn x4_absurd_sizes_are_refused_and_the_field_is_named() {
    let coordinator = TestCoordinator::start().await;
    let many: serde_json::Map<String, Value> =
        (0..10_000).map(|n| (format!("V{n}"), json!("x"))).collect();
    for (job, field) in [
        (json!({"command": ""}), "command"),
        (json!({"command": " \n "}), "command"),
        (json!({"command": "x".repeat(100_000)}), "command"),
        (json!({"command": "true", "env": {"BIG": "x".repeat(1 << 20)}}), "env"),
        (json!({"command": "true", "env": many}), "env"),
        (json!({"command": "true", "env": {"A=B": ""}}), "env"),
        (json!({"command": "true", "outputs": ["../*"]}), "outputs[0]"),
        (json!({"command": "true", "outputs": ["/etc/passwd"]}), "outputs[0]"),
        (json!({"command": "true", "count": 1_000_000}), "count"),
        (json!({"command": "true", "items": vec![""; 100_001]}), "items"),
        (json!({"command": "true", "priority": 101}), "priority"),
    ] {
        let refused = submit_json(&coordinator, &job).await;
        assert_eq!(refused.kind, ProblemKind::SubmissionRefused, "{field}");
        assert_eq!(refused.status, 422, "{field}");
        let detail = refused.detail.unwrap_or_default();
        assert!(detail.starts_with(field), "{field}: {detail}");
    }
    let huge = json!({"command": "x".repeat(11 << 20)});
    assert_eq!(submit_json(&coordinator, &huge).await.kind, ProblemKind::TooLarge);
    assert_eq!(jobs(&coordinator).await, 0);
    coordinator.stop().await;
}

#[tokio::test]
async fn x4_a_user_with_too_many_waiting_jobs_is_refused_and_others_are_not() {
    let coordinator = TestCoordinator::start_with(|config| config.waiting_max = 2).await;
    let client = coordinator.client(Role::Submitter).await;
    let job = CreateJob { command: "true".to_owned(), ..CreateJob::default() };
    let first = client.create_job(&job).await.unwrap().job_id;
    let array = CreateJob { count: Some(2), ..job.clone() };
    let refused = client.create_job(&array).await.unwrap_err().to_problem();
    assert_eq!((refused.kind, refused.status), (ProblemKind::QueueFull, 429));
    assert!(refused.detail.unwrap().contains("at most 2 jobs"));
    client.create_job(&job).await.unwrap();
    assert_eq!(client.create_job(&job).await.unwrap_err().kind(), ProblemKind::QueueFull);
    assert_eq!(jobs(&coordinator).await, 2);

    coordinator.client(Role::Submitter).await.create_job(&job).await.unwrap();
    client.cancel_job(first).await.unwrap();
    client.create_job(&job).await.unwrap();
}

#[tokio::test]
async fn h4_json_that_means_nothing_is_refused_and_the_place_is_named() {
    let coordinator = TestCoordinator::start().await;
    let token = coordinator.token(Role::Submitter).await;
    let nested = format!(r#"{{"command":"x","items":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
    for (body, place) in [
        (r#"{"command":"x","command":"y"}"#, "duplicate field `command`"),
        (r#"{"command":"x","env":{"A":"1","A":"2"}}"#, "env: duplicate name \"A\""),
        (r#"{"command":"x","requirements":{"os":"linux","os":"unix"}}"#, "requirements"),
        (r#"{"command":7}"#, "command: invalid type"),
        (r#"{"command":"x","env":{"A":1}}"#, "env"),
        (r#"{"command":"x","outputs":[7]}"#, "outputs[0]"),
        (r#"{"command":"x","priority":"high"}"#, "priority"),
        (r#"{"command":"x","priority":NaN}"#, "priority"),
        (r#"{"command":"x","priority":1e400}"#, "priority"),
        (r#"{"command":"x","retries":-1}"#, "retries"),
        (r#"{"command":"x","after":["nobody"]}"#, "after[0]"),
        (r#"{"command":"x","requirements":{"minCpus":1.5}}"#, "requirements.minCpus"),
        (r#"{"command":"x","requirements":{"minSandbox":"none"}}"#, "requirements.minSandbox"),
        (r#"{"command":"x","requirements":{"disk":1}}"#, "requirements.disk"),
        (r#"{"command":"x","surprise":1}"#, "surprise"),
        (nested.as_str(), "items[0]"),
        (r#" ["command"]"#, "a JSON object is expected"),
        (r#""command""#, "invalid type"),
        ("", "EOF"),
    ] {
        let request = coordinator
            .request(Method::POST, "/api/jobs/create")
            .bearer_auth(token.expose_secret())
            .body(body.to_owned());
        let refused = problem(request.send().await.unwrap()).await;
        assert_eq!(refused.kind, ProblemKind::Invalid, "{body}");
        let detail = refused.detail.unwrap_or_default();
        assert!(detail.starts_with(place), "{body}: {detail}");
    }
    assert_eq!(jobs(&coordinator).await, 0);
}

#[tokio::test]
async fn s4_the_same_key_gives_the_same_job_and_never_another() {
    let coordinator = TestCoordinator::start().await;
    let client = coordinator.client(Role::Submitter).await;
    let job = CreateJob {
        command: "true".to_owned(),
        idempotency_key: Some("key-1".to_owned()),
        ..CreateJob::default()
    };
    let first = client.create_job(&job).await.unwrap();
    let second = client.create_job(&job).await.unwrap();
    assert_eq!(first.job_id, second.job_id);
    let other = CreateJob { command: "false".to_owned(), ..job };
    let refused = client.create_job(&other).await.unwrap_err().to_problem();
    assert_eq!((refused.kind, refused.status), (ProblemKind::KeyReused, 422));
    assert_eq!(jobs(&coordinator).await, 1);
}

#[tokio::test]
async fn a_job_whose_file_was_not_uploaded_is_refused() {
    let coordinator = TestCoordinator::start().await;
    let refused = submit_json(
        &coordinator,
        &json!({"command": "true", "fileDigest": Digest::of(b"nowhere").to_string()}),
    )
    .await;
    assert_eq!(refused.kind, ProblemKind::FileMissing);
}

#[tokio::test]
async fn z1_an_entry_outside_the_folder_is_refused() {
    for name in ["../evil", "/etc/evil", "C:/evil", "a/../../evil", "\\\\host\\share", "..\\evil"] {
        refuse(&stored(&[entry(name)]), "").await;
    }
}

#[tokio::test]
async fn z2_a_link_or_device_is_refused() {
    for mode in [0o120_777_u32, 0o020_644, 0o010_644] {
        refuse(&stored(&[Entry { mode, ..entry("thing") }]), "thing").await;
    }
}

#[tokio::test]
async fn z3_a_bomb_is_refused() {
    let mut bytes = Vec::new();
    let mut zip = ZipWriter::new(std::io::Cursor::new(&mut bytes));
    zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
    for _ in 0..32 {
        zip.write_all(&[0; 1 << 20]).unwrap();
    }
    zip.finish().unwrap();
    refuse(&bytes, "zeros").await;
}

#[tokio::test]
async fn z4_names_that_collide_or_that_some_system_forbids_are_refused() {
    refuse(&stored(&[entry("a"), entry("A")]), "").await;
    refuse(&stored(&[entry("\u{e9}"), entry("e\u{301}")]), "").await;
    for name in ["CON", "nul.txt", "a:stream", "trailing.", "trailing ", "LPT1.log"] {
        refuse(&stored(&[entry(name)]), "").await;
    }
}

#[tokio::test]
async fn z5_what_two_readers_would_read_differently_is_refused() {
    refuse(&stored(&[Entry { local_name: Some("other"), ..entry("name!") }]), "").await;
    refuse(&stored(&[Entry { flags: 0x0801, ..entry("secret") }]), "").await;
    refuse(b"this is no archive at all", "").await;
    let mut cut = stored(&[entry("a")]);
    cut.truncate(cut.len() - 10);
    refuse(&cut, "").await;
}

/// Uploads the bytes and submits a job with them; the job must be refused, naming `named`, and not exist.
async fn refuse(bytes: &[u8], named: &str) {
    let coordinator = TestCoordinator::start().await;
    let token = coordinator.token(Role::Submitter).await;
    let digest = Digest::of(bytes).to_string();
    let upload = coordinator
        .request(Method::POST, "/api/files/upload")
        .bearer_auth(token.expose_secret())
        .header(DIGEST_HEADER, &digest)
        .body(bytes.to_vec());
    assert_eq!(upload.send().await.unwrap().status(), 200);
    for _ in 0..2 {
        let refused =
            submit_json(&coordinator, &json!({"command": "true", "fileDigest": digest})).await;
        assert_eq!(refused.kind, ProblemKind::ArchiveRefused);
        assert_eq!(refused.status, 422);
        let detail = refused.detail.unwrap_or_default();
        assert!(!detail.is_empty() && detail.contains(named), "{detail}");
    }
    assert_eq!(jobs(&coordinator).await, 0);
    coordinator.stop().await;
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a str,
    /// What the entry's own head calls it, when that differs from the directory.
    local_name: Option<&'a str>,
    mode: u32,
    flags: u16,
}

fn entry(name: &str) -> Entry<'_> {
    Entry { name, local_name: None, mode: 0o100_644, flags: 0x0800 }
}

/// A zip as no honest program would write it: names and modes go in as they are. The files are empty.
fn stored(entries: &[Entry<'_>]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = u32::try_from(zip.len()).unwrap();
        let local = entry.local_name.unwrap_or(entry.name);
        let length = |name: &str| u16::try_from(name.len()).unwrap().to_le_bytes();
        // Version, flags, method 0, time, date, checksum, sizes: of an empty file.
        let mut head = vec![20, 0];
        head.extend(entry.flags.to_le_bytes());
        head.extend([0, 0, 0, 0, 0x21, 0]);
        head.extend([0; 12]);
        zip.extend(b"PK\x03\x04");
        zip.extend(&head);
        zip.extend(length(local));
        zip.extend([0, 0]);
        zip.extend(local.as_bytes());

        directory.extend(b"PK\x01\x02");
        directory.extend([20, 3]);
        directory.extend(&head);
        directory.extend(length(entry.name));
        directory.extend([0; 8]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let at = u32::try_from(zip.len()).unwrap();
    let size = u32::try_from(directory.len()).unwrap();
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count);
    zip.extend(count);
    zip.extend(size.to_le_bytes());
    zip.extend(at.to_le_bytes());
    zip.extend([0, 0]);
    zip
}

#[tokio::test]
async fn an_archive_that_keeps_the_rules_is_accepted() {
    let coordinator = TestCoordinator::start().await;
    let token = coordinator.token(Role::Submitter).await;
    let bytes = stored(&[entry("a.txt"), entry("b/c.txt")]);
    let digest = Digest::of(&bytes);
    coordinator
        .request(Method::POST, "/api/files/upload")
        .bearer_auth(token.expose_secret())
        .header(DIGEST_HEADER, digest.to_string())
        .body(bytes)
        .send()
        .await
        .unwrap();
    let client = coordinator.client(Role::Submitter).await;
    let job =
        CreateJob { command: "true".to_owned(), file_digest: Some(digest), ..CreateJob::default() };
    let created =
        client.create_job(&job).await.expect("the refusals above are about what is wrong");
    assert_eq!(created.file_url, Some(format!("/api/files/{digest}")));
}
