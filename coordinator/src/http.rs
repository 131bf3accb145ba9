//! Accepts connections and speaks HTTP on them, with a time limit on every step and a cap on every size.
//!
//! `axum::serve` sets no limits, so connections are built here: handshake and head must arrive in time, heads
//! are small, idle and surplus connections are closed, and a shutdown lets requests end first.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response},
};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A TLS handshake must be over within this time.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The head of a request must arrive within this time; on HTTP/1 a connection may also idle this long.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
const STREAMS_MAX: u32 = 100;
/// A connection without any request is closed after this time.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// A silent HTTP/2 peer is asked for a sign of life this often, and given up when it gives none for as long.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Requests under way get this long once a shutdown is asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);
/// How long accepting pauses when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN_ON_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    This is the HTTPS port of a Lull coordinator: write https:// instead of http://\n";

/// How a connection reached the coordinator; each request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TLS.
    Https,
    /// Plain HTTP on a loopback address.
    Http,
}

/// Who sent a request; each request carries it as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// How many connections there may be.
#[derive(Debug)]
pub struct Connections {
    total_max: usize,
    per_address_max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
    total: AtomicUsize,
}

impl Connections {
    /// No connections so far.
    #[must_use]
    pub fn new(total_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            total_max,
            per_address_max,
            open: Mutex::default(),
            total: AtomicUsize::new(0),
        })
    }

    /// A place for one more connection from `address`, given back when dropped; none when it is full.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.total.load(Ordering::Relaxed) >= self.total_max {
            return None;
        }
        let from_there = open.entry(address).or_default();
        if *from_there >= self.per_address_max {
            return None;
        }
        *from_there += 1;
        self.total.fetch_add(1, Ordering::Relaxed);
        Some(Place { connections: Arc::clone(self), address })
    }
}

struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.connections.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Answers requests on one listener until `shutdown` is cancelled, then lets running requests end.
///
/// With `tls` the listener speaks HTTPS only, without it plain HTTP only.
///
/// # Errors
/// Never so far; listening ends by `shutdown` alone.
pub async fn run(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    app: Router,
    connections: Arc<Connections>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let tls = tls.map(TlsAcceptor::from);
    let mut serving = JoinSet::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        while serving.try_join_next().is_some() {}
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Some(place) = connections.admit(peer.ip()) else {
            tracing::warn!(peer = %peer.ip(), "connection refused, too many are open");
            continue;
        };
        let (tls, app, shutdown) = (tls.clone(), app.clone(), shutdown.clone());
        serving.spawn(async move {
            let _place = place;
            if let Err(error) = serve_socket(socket, peer, tls, app, shutdown).await {
                tracing::debug!(peer = %peer.ip(), error = %error, "connection ended early");
            }
        });
    }
    drop(listener);
    let all_ended = async { while serving.join_next().await.is_some() {} };
    if time::timeout(SHUTDOWN_GRACE, all_ended).await.is_err() {
        tracing::warn!(connections = serving.len(), "connections cut off by shutdown");
    }
    Ok(())
}

async fn pause_after(error: &io::Error) {
    let of_one_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_one_client {
        tracing::warn!(error = %error, "could not accept a connection");
        time::sleep(ACCEPT_PAUSE).await;
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn serve_socket(
    mut socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    app: Router,
    shutdown: CancellationToken,
) -> Result<(), AnyError> {
    socket.set_nodelay(true)?;
    let Some(tls) = tls else {
        return serve_connection(socket, Version::Http1, Scheme::Http, peer, app, shutdown).await;
    };
    let handshake = async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
            // A TLS record begins with 22, a plain request with the letters of its method.
            socket.write_all(PLAIN_ON_TLS).await?;
            return Ok(None);
        }
        tls.accept(socket).await.map(Some)
    };
    let handshake = time::timeout(HANDSHAKE_MAX, handshake);
    let Some(done) = shutdown.run_until_cancelled(handshake).await else { return Ok(()) };
    let Some(stream) = done?? else { return Ok(()) };
    let version = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Version::Http2,
        Some(_) | None => Version::Http1,
    };
    serve_connection(stream, version, Scheme::Https, peer, app, shutdown).await
}

#[derive(Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

/// The version is known beforehand, so that no unlimited wait for its first bytes is needed.
fn builder(version: Version) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    match version {
        Version::Http1 => builder.http1_only(),
        Version::Http2 => builder.http2_only(),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    version: Version,
    scheme: Scheme,
    peer: SocketAddr,
    app: Router,
    shutdown: CancellationToken,
) -> Result<(), AnyError> {
    let activity = Arc::new(Activity::default());
    let watched = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let under_way = UnderWay::begin(&watched);
        request.extensions_mut().insert(scheme);
        request.extensions_mut().insert(Peer(peer));
        let reply = app.clone().oneshot(request.map(Body::new));
        async move {
            let reply: Result<Response<Body>, Infallible> = reply.await;
            reply.map(|reply| reply.map(|body| Counted { body, _under_way: under_way }))
        }
    });
    let builder = builder(version);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = shutdown.cancelled(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = activity.idle() => return Ok(()),
        }
    }
}

/// What a connection is doing: requests whose reply, body included, is not over.
#[derive(Default)]
struct Activity {
    under_way: AtomicUsize,
    /// When the last reply ended.
    since: Mutex<Option<Instant>>,
}

impl Activity {
    /// Ends once the connection has been without requests for too long.
    async fn idle(&self) {
        let opened = Instant::now();
        loop {
            time::sleep(IDLE_MAX / 4).await;
            let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = self.under_way.load(Ordering::Relaxed) == 0;
            if idle && since.unwrap_or(opened).elapsed() >= IDLE_MAX {
                return;
            }
        }
    }
}

struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reply's body that counts as a request under way until it is sent or given up.
struct Counted {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_total_and_by_address_and_come_back() {
        let connections = Connections::new(3, 2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = connections.admit(a).expect("there is room");
        let _second = connections.admit(a).expect("there is room");
        assert!(connections.admit(a).is_none(), "the address has used its share");
        let _third = connections.admit(b).expect("another address has its own");
        assert!(connections.admit(b).is_none(), "all places are taken");
        drop(first);
        assert!(connections.admit(b).is_some());
    }
}
