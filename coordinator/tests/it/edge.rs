//! What every request meets: two listeners, limits, rules for browsers, and addresses that are not what they seem.

use lull_shared::{
    client::{Client, ClientError, Trust},
    credentials::{Role, SpkiPin},
    problem::ProblemKind,
};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

use crate::support::{PATIENCE, TestCoordinator, problem, raw_client};

#[tokio::test]
async fn a_client_with_another_fingerprint_sends_nothing() {
    let coordinator = TestCoordinator::start().await;
    let client = Client::new(&[&coordinator.https], Trust::SpkiPin(SpkiPin([7; 32]))).unwrap();
    let refused = client.with_token(coordinator.token(Role::Admin).await).whoami().await;
    assert!(matches!(refused, Err(ClientError::Untrusted { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_ca_in_the_data_folder_is_all_a_client_needs() {
    let coordinator = TestCoordinator::start().await;
    let ca = std::fs::read_to_string(coordinator.data.path().join("tls/ca.pem")).unwrap();
    let port = coordinator.https.rsplit_once(':').unwrap().1;
    for host in ["127.0.0.1", "localhost"] {
        let client = Client::new(&[format!("{host}:{port}")], Trust::CaPem(ca.clone())).unwrap();
        let client = client.with_token(coordinator.token(Role::Viewer).await);
        assert_eq!(client.whoami().await.unwrap().role, Role::Viewer);
    }
}

#[tokio::test]
async fn w1_plain_http_answers_only_as_localhost() {
    let coordinator = TestCoordinator::start().await;
    for (host, status) in [
        ("localhost:7701", 200),
        ("127.0.0.1", 200),
        ("evil.example", 403),
        ("localhost.evil", 403),
    ] {
        let request = coordinator.request(Method::GET, "/healthz").header("host", host);
        assert_eq!(request.send().await.unwrap().status(), status, "{host}");
    }
}

#[tokio::test]
async fn plain_http_on_the_https_port_is_told_so() {
    let coordinator = TestCoordinator::start().await;
    let reply = exchange(&coordinator.https, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    assert!(reply.contains("https://"), "{reply}");
}

#[tokio::test]
async fn h1_a_huge_head_is_refused() {
    let coordinator = TestCoordinator::start().await;
    let address = coordinator.http.trim_start_matches("http://");
    let mut large = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
    large.extend(vec![b'a'; 100 * 1024]);
    assert!(exchange(address, &large).await.starts_with("HTTP/1.1 431"));
    let mut many = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    many.extend(b"a: b\r\n".repeat(500));
    many.extend(b"\r\n");
    assert!(exchange(address, &many).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn h6_a_request_with_two_lengths_is_refused() {
    let coordinator = TestCoordinator::start().await;
    let address = coordinator.http.trim_start_matches("http://");
    let double = b"POST /api/jobs/create HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\
        content-length: 5\r\n\r\nabcd";
    assert!(exchange(address, double).await.starts_with("HTTP/1.1 400"));
}

/// Sends bytes and reads until the other side closes or falls silent for good.
async fn exchange(address: &str, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The coordinator may refuse and close before it has read everything.
    let _ = socket.write_all(request).await;
    let mut reply = vec![0; 4096];
    let read = time::timeout(PATIENCE, socket.read(&mut reply)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&reply[..read]).into_owned()
}

#[tokio::test]
async fn f1_no_address_leads_out_of_the_stores() {
    let coordinator = TestCoordinator::start().await;
    let token = coordinator.token(Role::Admin).await;
    for path in [
        "/api/files/..%2F..%2Flull.db",
        "/api/files/%2e%2e%2ftls%2fca.key",
        "/api/files/..%5c..%5clull.db",
        "/api/jobs/status?jobId=..%2F..%2Fetc%2Fpasswd",
        "/api/jobs/output?jobId=%00",
        "/api/files/9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
    ] {
        let request = coordinator.request(Method::GET, path).bearer_auth(token.expose_secret());
        let refused = problem(request.send().await.unwrap()).await;
        assert_eq!(refused.kind, ProblemKind::Invalid, "{path}");
    }
    let address = coordinator.http.trim_start_matches("http://");
    for path in ["/../tls/ca.key", "/..%2ftls/ca.key", "/%2e%2e/lull.db", "/_app/../../Cargo.toml"]
    {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: image/png\r\nconnection: close\r\n\r\n"
        );
        let reply = exchange(address, request.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 404"), "{path}: {reply}");
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let coordinator = TestCoordinator::start().await;
    let token = coordinator.token(Role::Admin).await;
    let ask = async |method: Method, path: &str| {
        let request = coordinator.request(method, path).bearer_auth(token.expose_secret());
        problem(request.send().await.unwrap()).await.kind
    };
    assert_eq!(ask(Method::GET, "/api/nowhere").await, ProblemKind::NotFound);
    assert_eq!(ask(Method::DELETE, "/api/jobs").await, ProblemKind::MethodNotAllowed);
    assert_eq!(ask(Method::POST, "/").await, ProblemKind::MethodNotAllowed);
    assert_eq!(ask(Method::GET, "/api/jobs?limit=0").await, ProblemKind::Invalid);
    assert_eq!(ask(Method::GET, "/api/jobs?limit=many").await, ProblemKind::Invalid);
    assert_eq!(ask(Method::GET, "/api/jobs/status").await, ProblemKind::Invalid);
    assert_eq!(ask(Method::POST, "/api/jobs/create").await, ProblemKind::Invalid);
}

#[tokio::test]
async fn h4_json_that_is_deep_or_goes_on_after_its_end_is_refused() {
    let coordinator = TestCoordinator::start().await;
    let token = coordinator.token(Role::Admin).await;
    for body in ["[".repeat(100_000), "{\"command\":\"x\"} true".to_owned(), "NaN".to_owned()] {
        let request = coordinator.request(Method::POST, "/api/jobs/create");
        let reply = request.bearer_auth(token.expose_secret()).body(body).send().await.unwrap();
        assert_eq!(problem(reply).await.kind, ProblemKind::Invalid);
    }
}

#[tokio::test]
async fn c3_readiness_names_what_is_wrong_with_the_database_and_comes_back() {
    let coordinator = TestCoordinator::start().await;
    let ready = async || coordinator.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(ready().await.status(), 200);
    let other = rusqlite::Connection::open(coordinator.data.path().join("lull.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();

    let refused = problem(ready().await).await;

    assert_eq!((refused.kind, refused.status), (ProblemKind::Unavailable, 503));
    assert_eq!(refused.detail.as_deref(), Some("the database does not answer"));
    let lives = coordinator.request(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(lives.status(), 200, "the process itself is well");
    other.execute_batch("rollback").unwrap();
    assert_eq!(ready().await.status(), 200);
    coordinator.stop().await;
}

#[tokio::test]
async fn browsers_get_their_rules_on_every_reply() {
    let coordinator = TestCoordinator::start().await;
    for path in ["/", "/healthz", "/api/jobs", "/api/docs"] {
        let reply = raw_client().get(format!("https://{}{path}", coordinator.https)).send().await;
        let headers = reply.unwrap().headers().clone();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(headers.contains_key("strict-transport-security"), "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{path}");
    }
    let plain = coordinator.request(Method::GET, "/").send().await.unwrap();
    assert!(!plain.headers().contains_key("strict-transport-security"));
}

#[tokio::test]
async fn too_many_connections_from_one_address_are_closed() {
    let coordinator =
        TestCoordinator::start_with(|config| config.connections_per_address_max = 2).await;
    let address = coordinator.http.trim_start_matches("http://").to_owned();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut held = Vec::new();
    let refused = time::timeout(PATIENCE, async {
        loop {
            let mut socket = TcpStream::connect(&address).await.unwrap();
            let mut reply = [0; 64];
            let sent = socket.write_all(request).await;
            if sent.is_err() || !matches!(socket.read(&mut reply).await, Ok(1..)) {
                return held.len();
            }
            held.push(socket);
        }
    })
    .await
    .expect("one is refused");
    assert!(refused <= 2, "{refused} were admitted");
}
