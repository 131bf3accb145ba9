//! Who may do what: every operation asked by everybody. A new operation without a row fails here.

use std::collections::BTreeSet;

use lull_shared::{credentials::Role, problem::ProblemKind};
use reqwest::Method;
use secrecy::ExposeSecret as _;

use crate::support::{TestCoordinator, problem};

/// What the table of rights says to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Through to the handler, whatever it thinks of the request.
    Pass,
    /// No good token: 401.
    Who,
    /// A good token that does not allow this: 403.
    Not,
}

use Answer::{Not, Pass, Who};

/// Method, address, and the answers to: nobody, viewer, submitter, admin, worker, garbage.
const ROWS: &[(&str, &str, [Answer; 6])] = &[
    ("GET", "/healthz", [Pass, Pass, Pass, Pass, Pass, Pass]),
    ("GET", "/readyz", [Pass, Pass, Pass, Pass, Pass, Pass]),
    ("GET", "/api/openapi.json", [Pass, Pass, Pass, Pass, Pass, Pass]),
    ("GET", "/api/docs", [Pass, Pass, Pass, Pass, Pass, Pass]),
    ("GET", "/api/whoami", [Who, Pass, Pass, Pass, Not, Who]),
    ("POST", "/api/workers/register", [Who, Not, Not, Not, Pass, Who]),
    ("GET", "/api/workers/register", [Who, Pass, Pass, Pass, Not, Who]),
    ("GET", "/api/workers", [Who, Pass, Pass, Pass, Not, Who]),
    ("POST", "/api/workers/heartbeat", [Who, Not, Not, Not, Pass, Who]),
    ("POST", "/api/jobs/create", [Who, Not, Pass, Pass, Not, Who]),
    ("GET", "/api/jobs/create", [Who, Pass, Pass, Pass, Not, Who]),
    ("GET", "/api/jobs", [Who, Pass, Pass, Pass, Not, Who]),
    ("GET", "/api/jobs/status", [Who, Pass, Pass, Pass, Not, Who]),
    ("POST", "/api/jobs/cancel", [Who, Not, Pass, Pass, Not, Who]),
    ("GET", "/api/jobs/explain", [Who, Pass, Pass, Pass, Not, Who]),
    ("POST", "/api/jobs/hold", [Who, Not, Pass, Pass, Not, Who]),
    ("POST", "/api/jobs/release", [Who, Not, Pass, Pass, Not, Who]),
    ("POST", "/api/jobs/resubmit", [Who, Not, Pass, Pass, Not, Who]),
    ("GET", "/api/events", [Who, Pass, Pass, Pass, Not, Who]),
    ("POST", "/api/workers/drain", [Who, Not, Not, Pass, Not, Who]),
    ("POST", "/api/workers/release", [Who, Not, Not, Pass, Not, Who]),
    ("GET", "/api/jobs/get-job", [Who, Not, Not, Not, Pass, Who]),
    ("POST", "/api/jobs/submit-result", [Who, Not, Not, Not, Pass, Who]),
    ("PUT", "/api/jobs/submit-result", [Who, Not, Not, Not, Pass, Who]),
    ("POST", "/api/jobs/stream-output", [Who, Not, Not, Not, Pass, Who]),
    ("GET", "/api/jobs/output", [Who, Pass, Pass, Pass, Not, Who]),
    ("POST", "/api/files/upload", [Who, Not, Pass, Pass, Pass, Who]),
    ("GET", "/api/files/{digest}", [Who, Pass, Pass, Pass, Pass, Who]),
    ("POST", "/api/execute", [Who, Not, Pass, Pass, Not, Who]),
    ("DELETE", "/api/jobs", [Who, Pass, Pass, Pass, Pass, Who]),
    ("GET", "/api/nowhere", [Who, Pass, Pass, Pass, Pass, Who]),
];

#[test]
fn every_operation_has_a_row() {
    let document: serde_json::Value =
        serde_json::from_str(&lull_coordinator::routes::api_document_json()).unwrap();
    let rows: BTreeSet<String> =
        ROWS.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let operation = format!("{} {path}", method.to_uppercase());
            assert!(rows.contains(&operation), "{operation} has no row");
        }
    }
}

#[tokio::test]
async fn every_operation_answers_everybody_as_the_table_says() {
    let coordinator = TestCoordinator::start().await;
    let mut tokens = vec![None];
    for role in Role::ALL {
        tokens.push(Some(coordinator.token(role).await.expose_secret().to_owned()));
    }
    let worker = coordinator.worker("w").await;
    tokens.push(Some(worker.token.expose_secret().to_owned()));
    tokens.push(Some("lullt_garbage".to_owned()));

    for (method, path, answers) in ROWS {
        let path = path.replace("{digest}", "not-a-digest");
        for (token, expected) in tokens.iter().zip(answers) {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = coordinator.request(method.clone(), &path);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let status = request.send().await.unwrap().status().as_u16();
            let answer = match status {
                401 => Who,
                403 => Not,
                _ => Pass,
            };
            assert_eq!(answer, *expected, "{method} {path} as {token:?}: {status}");
        }
    }
    coordinator.stop().await;
}

/// The kind, the id and the secret of a token; the secret may itself hold underscores.
fn parts(token: &str) -> [&str; 3] {
    token.splitn(3, '_').collect::<Vec<_>>().try_into().unwrap()
}

#[tokio::test]
async fn a_token_that_is_expired_or_half_right_is_none() {
    let coordinator = TestCoordinator::start().await;
    let soon =
        lull_shared::time::Clock::now(&*coordinator.clock) + std::time::Duration::from_secs(60);
    let token = coordinator.token_until(Role::Admin, Some(soon)).await;
    let ask = async |token: &str| {
        let request = coordinator.request(Method::GET, "/api/whoami").bearer_auth(token);
        request.send().await.unwrap()
    };
    assert_eq!(ask(token.expose_secret()).await.status(), 200);

    let other = coordinator.token(Role::Admin).await;
    let [kind, id, _] = parts(token.expose_secret());
    let [_, _, secret] = parts(other.expose_secret());
    let forged = problem(ask(&format!("{kind}_{id}_{secret}")).await).await;
    assert_eq!(forged.kind, ProblemKind::Unauthenticated);
    assert!(!format!("{forged:?}").contains(secret));

    coordinator.clock.advance(std::time::Duration::from_secs(61));
    let expired = problem(ask(token.expose_secret()).await).await;
    assert_eq!(expired.kind, ProblemKind::Unauthenticated);
    assert_eq!(expired.detail.as_deref(), Some("the token has expired"));
}

#[tokio::test]
async fn a_worker_s_token_under_another_worker_s_id_is_none() {
    let coordinator = TestCoordinator::start().await;
    let (one, other) = (coordinator.worker("one").await, coordinator.worker("other").await);
    let secret = one.token.expose_secret().rsplit_once(&format!("{}_", one.id)).unwrap().1;
    let forged = format!("lullw_{}_{secret}", other.id);
    let reply = coordinator
        .request(Method::GET, "/api/jobs/get-job")
        .bearer_auth(forged)
        .send()
        .await
        .unwrap();
    assert_eq!(problem(reply).await.kind, ProblemKind::Unauthenticated);
}
