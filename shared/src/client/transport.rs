//! Connections: which address, which certificate, which proxy.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{
    RequestBuilder, Response,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
    redirect,
};
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

use super::{
    ClientError, Trust,
    error::classify,
    trust::{SeenCa, tls_config, to_pem},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Several streams share a connection: one that nobody reads must not stop the others.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Transport {
    targets: Vec<Target>,
    /// The target that answered last, where the next request goes first.
    current: AtomicUsize,
    seen_ca: SeenCa,
}

/// One address of the coordinator.
#[derive(Debug)]
struct Target {
    /// Scheme, host and port, without a slash at the end.
    base: String,
    http: reqwest::Client,
}

impl Transport {
    pub(super) fn new<A: AsRef<str>>(addresses: &[A], trust: Trust) -> Result<Self, ClientError> {
        let seen_ca = Arc::new(Mutex::new(None));
        let addresses = addresses
            .iter()
            .map(|address| Address::parse(address.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            let reason = "there is none";
            return Err(ClientError::Address { address: String::new(), reason });
        }
        let tls = tls_config(&trust, &seen_ca)?;
        let build = |loopback| {
            let mut http = reqwest::Client::builder()
                .user_agent(concat!("lull/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_LIMIT)
                .tcp_nodelay(true)
                .tcp_keepalive(KEEP_ALIVE)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .http2_keep_alive_timeout(KEEP_ALIVE)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW);
            if let Some(tls) = &tls {
                http = http.tls_backend_preconfigured(tls.clone());
            }
            if loopback {
                http = http.no_proxy();
            }
            http.build().map_err(ClientError::request)
        };
        let targets = addresses
            .into_iter()
            .map(|address| Ok(Target { http: build(address.loopback)?, base: address.base }))
            .collect::<Result<Vec<_>, ClientError>>()?;
        Ok(Self { targets, current: AtomicUsize::new(0), seen_ca })
    }

    pub(super) fn address(&self) -> String {
        self.targets[self.current.load(Ordering::Relaxed)].base.clone()
    }

    pub(super) fn ca_pem(&self) -> Option<String> {
        self.seen_ca.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(to_pem)
    }

    /// Sends one request. Goes on to the next address only where no connection was made, so that nothing is
    /// sent twice.
    pub(super) async fn send(
        &self,
        build: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Result<Response, ClientError> {
        let first = self.current.load(Ordering::Relaxed);
        let mut failure = None;
        for step in 0..self.targets.len() {
            let index = (first + step) % self.targets.len();
            let target = &self.targets[index];
            match build(&target.http, &target.base).send().await {
                Ok(response) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => {
                    let connected = !error.is_connect();
                    let error = classify(&target.base, error);
                    if connected {
                        return Err(error);
                    }
                    // Of several, the one that is there but not the right one is worth telling.
                    if failure.is_none() || matches!(error, ClientError::Untrusted { .. }) {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.expect("there is at least one address, and each one failed"))
    }

    /// The error for a reply that makes no sense.
    pub(super) fn protocol(
        &self,
        what: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        let source = Some(source.into());
        ClientError::Protocol { address: self.address(), what: what.to_owned(), source }
    }
}

/// The header that carries a token, marked so that no log shows it.
pub(super) fn authorization(token: &SecretString) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // A token with a byte that no header may carry is no token of Lull: the coordinator says so.
    if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

#[derive(Debug)]
struct Address {
    base: String,
    loopback: bool,
}

impl Address {
    fn parse(text: &str) -> Result<Self, ClientError> {
        let refuse = |reason| ClientError::Address { address: text.to_owned(), reason };
        let text = text.trim();
        let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&url).map_err(|_| refuse("it is neither host:port nor https://…"))?;
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            None => return Err(refuse("the host is missing")),
        };
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(refuse("plain http:// is for this computer itself only")),
            _ => return Err(refuse("it does not begin with https://")),
        }
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("nothing but host and port belongs in it"));
        }
        Ok(Self { base: url.origin().ascii_serialization(), loopback })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_plain_only_at_home() {
        check("pool.example:7700", Some(("https://pool.example:7700", false)));
        check("https://pool.example", Some(("https://pool.example", false)));
        check("[::1]:7700", Some(("https://[::1]:7700", true)));
        check("http://127.0.0.1:7701/", Some(("http://127.0.0.1:7701", true)));
        check("http://localhost:7701", Some(("http://localhost:7701", true)));
        check("http://pool.example:7701", None);
        check("http://127.0.0.1.example:7701", None);
        check("ftp://127.0.0.1", None);
        check("https://me:secret@pool.example", None);
        check("https://pool.example/api", None);
        check("https://pool.example?x", None);
        check("", None);
    }

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, bool)>) {
        let address = Address::parse(text).ok();
        let read = address.as_ref().map(|a| (a.base.as_str(), a.loopback));
        assert_eq!(read, expected, "{text:?}");
    }
}
