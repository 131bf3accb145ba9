//! The client against a small server of its own: who it trusts, and what it does when the connection breaks.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt as _;
use lull_shared::{
    client::{Client, ClientError, Trust, hash_file},
    credentials::SpkiPin,
    events::PoolEvent,
    ids::{Digest, JobId},
    output::{OutputEvent, OutputView},
    problem::ProblemKind,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

// Trust.

struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn pin(&self) -> SpkiPin {
        SpkiPin(Sha256::digest(self.issuer.key().subject_public_key_info()).into())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// A server's certificate with its key, changed as the test likes.
    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pin = SpkiPin(Sha256::digest(key.subject_public_key_info()).into());
        Leaf { der: certificate.der().clone(), key, pin }
    }
}

struct Leaf {
    der: CertificateDer<'static>,
    key: KeyPair,
    pin: SpkiPin,
}

/// A TLS server with this chain that answers everything with an empty 200.
async fn tls_server(leaf: &Leaf, rest: Vec<CertificateDer<'static>>) -> (String, Requests) {
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let chain = [vec![leaf.der.clone()], rest].concat();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Requests::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(socket).await {
                let head = read_head(&mut stream).await;
                seen.0.lock().unwrap().push(head);
                drop(stream.write_all(EMPTY.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        }
    });
    (address, requests)
}

#[tokio::test]
async fn the_right_fingerprint_is_trusted_and_gives_the_ca() {
    let ca = Ca::new();
    let (address, _) = tls_server(&ca.leaf(|_| {}), vec![ca.der()]).await;
    let pem = Client::fetch_ca(&[&address], ca.pin()).await.unwrap();
    let client = Client::new(&[&address], Trust::CaPem(pem)).unwrap();
    client.healthz().await.unwrap();
}

#[tokio::test]
async fn a_wrong_fingerprint_is_told_before_anything_is_sent() {
    let ca = Ca::new();
    let (address, requests) = tls_server(&ca.leaf(|_| {}), vec![ca.der()]).await;
    let client = Client::new(&[&address], Trust::SpkiPin(Ca::new().pin()))
        .unwrap()
        .with_token("very secret".to_owned().into());
    untrusted(client.whoami().await.unwrap_err());
    assert_eq!(requests.all(), Vec::<String>::new());
    assert_eq!(client.ca_pem(), None);
}

#[tokio::test]
async fn the_ca_with_the_fingerprint_must_have_signed_the_certificate() {
    let (signer, pinned) = (Ca::new(), Ca::new());
    let (address, _) = tls_server(&signer.leaf(|_| {}), vec![pinned.der(), signer.der()]).await;
    untrusted(Client::fetch_ca(&[&address], pinned.pin()).await.unwrap_err());
}

#[tokio::test]
async fn a_certificate_for_another_name_or_another_time_is_refused() {
    let ca = Ca::new();
    let elsewhere = ca.leaf(|params| {
        *params = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    });
    let expired = ca.leaf(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    for leaf in [elsewhere, expired] {
        let (address, _) = tls_server(&leaf, vec![ca.der()]).await;
        untrusted(Client::fetch_ca(&[&address], ca.pin()).await.unwrap_err());
    }
}

#[tokio::test]
async fn only_a_ca_can_have_the_fingerprint() {
    let ca = Ca::new();
    let leaf = ca.leaf(|_| {});
    let (address, _) = tls_server(&leaf, vec![leaf.der.clone(), ca.der()]).await;
    untrusted(Client::fetch_ca(&[&address], leaf.pin).await.unwrap_err());
}

#[tokio::test]
async fn another_ca_is_refused_also_without_a_fingerprint() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (address, _) = tls_server(&ca.leaf(|_| {}), vec![ca.der()]).await;
    let (elsewhere, _) = tls_server(&other.leaf(|_| {}), vec![other.der()]).await;
    let pem = Client::fetch_ca(&[&elsewhere], other.pin()).await.unwrap();
    let client = Client::new(&[&address], Trust::CaPem(pem)).unwrap();
    untrusted(client.healthz().await.unwrap_err());
}

#[track_caller]
fn untrusted(error: ClientError) {
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
}

// Broken connections and odd replies.

#[tokio::test]
async fn following_goes_on_after_the_last_event_that_arrived() {
    let job = JobId::generate();
    let (address, requests) = server(vec![
        sse("event: started\nid: 1\ndata: {\"event\":\"started\",\"attempt\":1,\"hostname\":\"h\"}\n\n:"),
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
        sse(&output_event(2, "one") ),
        sse(&format!("{}event: from the future\ndata: ?\n\n{}", output_event(3, "two"), ended(job))),
    ])
    .await;
    let client = Client::new(&[format!("http://{address}")], Trust::System).unwrap();
    let lost = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&lost);
    let events = client.follow_output_telling(job, OutputView::Raw, move |_| {
        *counted.lock().unwrap() += 1;
    });
    let followed = events.map(Result::unwrap).collect::<Vec<_>>();
    let events = tokio::time::timeout(Duration::from_secs(20), followed).await.unwrap();
    let data: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            OutputEvent::Output { data, .. } => Some(data.as_str()),
            OutputEvent::Started { .. }
            | OutputEvent::Dropped { .. }
            | OutputEvent::Requeued { .. }
            | OutputEvent::Ended { .. } => None,
        })
        .collect();
    assert_eq!(data, ["one", "two"]);
    assert!(matches!(events.last(), Some(OutputEvent::Ended { .. })));
    assert_eq!(*lost.lock().unwrap(), 3);
    let resumed_after: Vec<Option<String>> =
        requests.all().iter().map(|head| header(head, "last-event-id")).collect();
    let id = |text: &str| Some(text.to_owned());
    assert_eq!(resumed_after, [None, id("1"), id("1"), id("2")]);
}

#[tokio::test]
async fn the_pool_is_followed_from_the_last_change_that_arrived() {
    let job = JobId::generate();
    let change = |id: u32, status: &str| {
        format!(
            "event: job\nid: a-{id}\ndata: {{\"event\":\"job\",\"jobId\":\"{job}\",\"status\":\"{status}\",\"attempt\":1,\"arrayId\":null}}\n\n"
        )
    };
    let reset = "event: reset\nid: a-0\ndata: {\"event\":\"reset\"}\n\n";
    let (address, requests) = server(vec![
        sse(&format!("{reset}{}", change(1, "running"))),
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
        sse(&format!("event: from the future\ndata: ?\n\n{}", change(2, "completed"))),
        reply(401, "text/plain", ""),
    ])
    .await;
    let client = Client::new(&[format!("http://{address}")], Trust::System).unwrap();
    let followed = client.follow_pool().collect::<Vec<_>>();
    let events = tokio::time::timeout(Duration::from_secs(20), followed).await.unwrap();
    let states: Vec<_> = events
        .iter()
        .map(|event| match event {
            Ok(PoolEvent::Reset) => "reset",
            Ok(PoolEvent::Job { status, .. }) => status.name(),
            Ok(PoolEvent::Worker { .. }) => "worker",
            Err(_) => "refused",
        })
        .collect();
    assert_eq!(states, ["reset", "running", "completed", "refused"]);
    let resumed_after: Vec<Option<String>> =
        requests.all().iter().map(|head| header(head, "last-event-id")).collect();
    let id = |text: &str| Some(text.to_owned());
    assert_eq!(resumed_after, [None, id("a-1"), id("a-1"), id("a-2")]);
}

#[tokio::test]
async fn a_refusal_ends_the_following() {
    let refusal = r#"{"type":"/problems/not_found","kind":"not_found","title":"t","status":404}"#;
    let (address, _) = server(vec![reply(404, "application/problem+json", refusal)]).await;
    let client = Client::new(&[format!("http://{address}")], Trust::System).unwrap();
    let mut events = client.follow_output(JobId::generate(), OutputView::Raw);
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ProblemKind::NotFound);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_redirection_is_not_followed() {
    let (target, requests) = server(vec![EMPTY.to_owned()]).await;
    let away = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{target}/\r\ncontent-length: 0\r\n\r\n"
    );
    let (address, _) = server(vec![away]).await;
    let client = Client::new(&[format!("http://{address}")], Trust::System)
        .unwrap()
        .with_token("very secret".to_owned().into());
    let error = client.whoami().await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
    assert_eq!(requests.all(), Vec::<String>::new());
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let (address, _) = server(vec![EMPTY.to_owned()]).await;
    // Bound and dropped: nothing listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let addresses = [format!("http://{gone}"), format!("http://{address}")];
    let client = Client::new(&addresses, Trust::System).unwrap();
    client.healthz().await.unwrap();
    assert_eq!(client.address(), addresses[1]);
}

#[tokio::test]
async fn a_submission_whose_reply_is_lost_is_sent_again_under_the_same_key() {
    let (address, requests) = server(vec![String::new(), reply(409, "text/plain", "")]).await;
    let client = Client::new(&[format!("http://{address}")], Trust::System).unwrap();
    let error = client.create_job(&lull_shared::jobs::CreateJob::default()).await.unwrap_err();
    assert_eq!(error.kind(), ProblemKind::Conflict);
    let requests = requests.all();
    let key = |text: &str| text.split("idempotencyKey\":\"").nth(1).map(|key| key[..36].to_owned());
    assert_eq!(requests.len(), 2);
    assert!(key(&requests[0]).is_some(), "{requests:?}");
    assert_eq!(key(&requests[0]), key(&requests[1]));
}

#[tokio::test]
async fn a_file_that_is_there_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input.zip");
    std::fs::write(&path, "bytes").unwrap();
    let (digest, size) = hash_file(&path, |_, _| {}).await.unwrap();
    assert_eq!((digest, size), (Digest::of(b"bytes"), 5));
    let (address, requests) = server(vec![EMPTY.replace(": 0", ": 5")]).await;
    let client = Client::new(&[format!("http://{address}")], Trust::System).unwrap();
    client.upload_file(&path, digest, |_, _| {}).await.unwrap();
    let requests = requests.all();
    assert!(requests.len() == 1 && requests[0].starts_with("HEAD /api/files/"), "{requests:?}");
}

#[tokio::test]
async fn a_download_that_is_not_what_was_asked_for_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let wrong = reply(200, "application/octet-stream", "other bytes");
    let cut = wrong.replace("content-length: 11", "content-length: 100");
    let (address, _) = server(vec![wrong, cut, reply(200, "x", "bytes")]).await;
    let client = Client::new(&[format!("http://{address}")], Trust::System).unwrap();
    let digest = Digest::of(b"bytes");
    let error = client.download_to(digest, &path, |_, _| {}).await.unwrap_err();
    assert_eq!(error.kind(), ProblemKind::DigestMismatch);
    assert!(!path.exists());
    let error = client.download_to(digest, &path, |_, _| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert!(!path.exists());
    assert_eq!(client.download_to(digest, &path, |_, _| {}).await.unwrap(), 5);
    assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
}

#[tokio::test]
async fn a_passed_on_request_stays_with_the_coordinator() {
    let client = Client::new(&["http://127.0.0.1:1"], Trust::System).unwrap();
    for path in ["//evil.example/api/", "/api/../healthz", "http://evil.example/", "@evil", ""] {
        let error = client.request_json("GET", path, None).await.unwrap_err();
        assert!(matches!(error, ClientError::Request(_)), "{path}: {error:?}");
    }
}

/// What the server was sent, one entry for each connection.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A plain server that gives one connection after the other its reply and closes it.
async fn server(replies: Vec<String>) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Requests::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        for reply in replies {
            let (mut socket, _) = listener.accept().await.unwrap();
            let head = read_head(&mut socket).await;
            seen.0.lock().unwrap().push(head);
            let reply = reply.replacen("\r\n", "\r\nconnection: close\r\n", 1);
            socket.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    (address, requests)
}

/// Reads a request: its head, and the body that it announces.
async fn read_head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").map_or(0, |text| text.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        if count == 0 {
            return text;
        }
        read.extend_from_slice(&chunk[..count]);
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn reply(status: u16, media_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn sse(events: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}")
}

fn output_event(id: u32, data: &str) -> String {
    let event =
        format!(r#"{{"event":"output","attempt":1,"stream":"stdout","offset":0,"data":"{data}"}}"#);
    format!("event: output\nid: {id}\ndata: {event}\n\n")
}

fn ended(job: JobId) -> String {
    let job = format!(
        r#"{{"jobId":"{job}","status":"completed","name":"n","command":"c","createdAt":0,"attempt":1,"submittedBy":"me"}}"#
    );
    format!("event: ended\nid: 9\ndata: {{\"event\":\"ended\",\"job\":{job}}}\n\n")
}
