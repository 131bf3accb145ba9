//! What every request and reply passes: an id, the log, the rules for browsers, and where plain HTTP may come from.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{MatchedPath, Request},
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY,
            STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use lull_shared::problem::ProblemKind;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    http::Scheme,
    routes::problem::{ApiError, problem_response},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What no reply may be used for. The page carries rules for its own scripts and styles besides.
const POLICY: HeaderValue = HeaderValue::from_static(
    "base-uri 'none'; object-src 'none'; frame-ancestors 'none'; form-action 'self'",
);
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Gives the request an id, logs how it went, once, and puts the id into a problem.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().simple().to_string();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!("request", method = %request.method(), route, id);
    let secure = request.extensions().get() != Some(&Scheme::Http);
    let began = Instant::now();

    let answer = async {
        let mut response = match check_host(&request) {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        };
        if let Some(error) = response.extensions_mut().remove::<Arc<ApiError>>() {
            log(&error);
            let mut problem = error.problem();
            problem.request_id = Some(id.clone());
            let mut named = problem_response(&problem);
            for header in [ALLOW, CONTENT_RANGE] {
                if let Some(value) = response.headers_mut().remove(&header) {
                    named.headers_mut().insert(header, value);
                }
            }
            response = named;
        }
        let duration_ms = began.elapsed().as_millis();
        tracing::debug!(status = response.status().as_u16(), duration_ms, "request answered");
        response
    };
    let mut response = answer.instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    add_rules(headers, secure);
    response
}

/// The only place a failed request is logged, with its whole chain of causes.
fn log(error: &ApiError) {
    match error {
        ApiError::Refused(problem) => {
            tracing::debug!(problem = %problem, "request refused");
        }
        ApiError::Failed(_, cause) => {
            tracing::error!(error = format!("{cause:#}"), "request failed");
        }
    }
}

fn add_rules(headers: &mut HeaderMap, secure: bool) {
    let no_sniffing = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, no_sniffing);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(POLICY);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if secure {
        headers.insert(STRICT_TRANSPORT_SECURITY, ONE_YEAR);
    }
}

/// On plain HTTP only this machine's own names are answered: a page elsewhere whose name is pointed at
/// 127.0.0.1 gets nothing.
fn check_host(request: &Request) -> Result<(), ApiError> {
    if request.extensions().get() != Some(&Scheme::Http) {
        return Ok(());
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().host().or(host).unwrap_or_default();
    if is_loopback(host) {
        return Ok(());
    }
    let detail = "plain HTTP is answered as localhost only; use https:// for other names";
    Err(ApiError::refused(ProblemKind::Forbidden, detail))
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered_without_tls() {
        for host in ["localhost", "LOCALHOST:7701", "127.0.0.1:7701", "127.1.2.3", "[::1]:7701"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7701",
            "localhost.evil.example",
            "localhost@evil.example",
            "192.168.1.2:7701",
            "[::2]",
            "localhost/x",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
