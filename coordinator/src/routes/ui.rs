//! The page: one bundle, part of the program, read from disk in development builds.

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{Html, IntoResponse, Response},
};
use lull_shared::problem::ProblemKind;
use rust_embed::{Embed, EmbeddedFile};

use crate::routes::problem::ApiError;

#[derive(Embed)]
#[folder = "../desktop-ui/build"]
#[allow_missing = true]
struct Page;

/// Every address inside the page is answered with this file; the page finds its own way.
const ENTRY: &str = "index.html";
/// Files below here carry a hash of their content in their name.
const IMMUTABLE: &str = "_app/immutable/";

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><meta name=color-scheme content='light dark'>\
    <title>Lull</title><body style='font:16px/1.5 system-ui;max-width:36em;margin:15vh auto;padding:0 1em'>\
    <h1>The coordinator runs, its page is not built</h1>\
    <p>This program was built without the page. Build the page, then the program again:</p>\
    <pre>npm --prefix desktop-ui ci\nnpm --prefix desktop-ui run build\ncargo build --release -p lull-coordinator</pre>\
    <p>Until then the <a href=/api/docs>API</a> and the <code>lull</code> command work as they are.</p>";

/// Answers whatever no route answers: a file of the page, the page itself, or a 404.
pub(crate) async fn serve_page(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") {
        return ApiError::not_found("address").into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ([(ALLOW, "GET, HEAD")], ApiError::from(ProblemKind::MethodNotAllowed))
            .into_response();
    }
    let name = path.trim_start_matches('/');
    if !name.is_empty()
        && let Some(file) = Page::get(name)
    {
        return reply(&file, name, request.headers());
    }
    if !wants_html(request.headers()) || name.starts_with(IMMUTABLE) {
        return ApiError::not_found("file").into_response();
    }
    match Page::get(ENTRY) {
        Some(file) => reply(&file, ENTRY, request.headers()),
        None => (StatusCode::SERVICE_UNAVAILABLE, Html(NOT_BUILT)).into_response(),
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    accept.contains("text/html") || accept.contains("*/*")
}

fn reply(file: &EmbeddedFile, name: &str, request: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let etag: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{etag}\"");
    let known = request.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag));

    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.clone().into_owned()).into_response()
    };
    let headers = response.headers_mut();
    let caching = if name.starts_with(IMMUTABLE) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    for (name, value) in [(ETAG, etag), (CONTENT_TYPE, content_type(file.metadata.mimetype()))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

fn content_type(mime: &str) -> String {
    if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime.to_owned() }
}
