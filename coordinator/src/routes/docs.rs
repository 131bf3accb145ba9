//! The API document: what the route table says of itself, completed, and the page made of it.

use axum::{
    Json,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY},
    },
    response::{Html, IntoResponse, Response},
};
use lull_shared::{
    events::PoolEvent,
    local::{Connection, LocalAttempt, LocalHistory, LocalStatus},
    output::OutputEvent,
    problem::Problem,
};
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, Ref, RefOr, ResponseBuilder, Responses,
        path::{Operation, PathItem},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::{
    auth::{self, Who},
    routes::{api_document, reference},
};

/// What the document says besides the operations.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lull coordinator",
        description = "Hands out jobs to idle PCs. Every failure is an RFC 9457 problem document with a `kind` to branch on. Times are milliseconds since the epoch."
    ),
    tags(
        (name = "jobs", description = "Submit, follow and cancel jobs"),
        (name = "files", description = "Zips that go out and results that come home, by SHA-256"),
        (name = "workers", description = "The PCs of the pool"),
        (name = "work", description = "What a worker does: claim jobs, report output and results"),
        (name = "health", description = "Whether the coordinator works, and who is asking"),
        (name = "document", description = "This document"),
    ),
    components(schemas(Problem, OutputEvent, PoolEvent, LocalStatus, LocalHistory, LocalAttempt, Connection))
)]
pub(crate) struct ApiDoc;

/// Adds to every operation whose token it takes and how it can fail.
pub(crate) fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document.info.license = None;
    document.info.contact = None;
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API token, a worker's token, or the joining part of a join code"))
        .build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("token", SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let who = auth::RIGHTS
                .iter()
                .find(|right| right.method == method && right.path == path)
                .map_or(Who::Anybody, |right| right.who);
            complete_operation(operation, who);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, post, put, .. } = item;
    [("GET", get), ("POST", post), ("PUT", put)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn complete_operation(operation: &mut Operation, who: Who) {
    let responses = &mut operation.responses;
    add(responses, "default", "Any other failure, as a problem document");
    if operation.parameters.is_some() || operation.request_body.is_some() {
        add(responses, "400", "`invalid`: `detail` names the field and the rule");
    }
    if operation.request_body.is_some() {
        add(responses, "413", "`too_large`");
        add(responses, "408", "`timed_out`: the body did not arrive in time");
    }
    if who == Who::Anybody {
        return;
    }
    add(responses, "401", "`unauthenticated`, or `join_refused` for a join code");
    add(responses, "403", "`forbidden`: the token does not allow this");
    operation.security = Some(vec![SecurityRequirement::new("token", [] as [&str; 0])]);
    let right = format!("Takes: {}.", who.describe());
    operation.description = Some(match operation.description.take() {
        Some(text) if !text.is_empty() => format!("{text}\n\n{right}"),
        Some(_) | None => right,
    });
}

fn add(responses: &mut Responses, status: &str, description: &str) {
    let problem =
        ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem")))).build();
    let response = ResponseBuilder::new()
        .description(description)
        .content(Problem::MEDIA_TYPE, problem)
        .build();
    responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
}

/// The document as it is committed: pretty, with a newline at its end.
#[must_use]
pub fn api_document_json() -> String {
    let mut json = api_document().to_pretty_json().expect("a document is always valid JSON");
    json.push('\n');
    json
}

/// The API document itself, as OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "document",
    responses((status = 200, description = "The document", body = serde_json::Value)),
)]
pub(crate) async fn get_document() -> Response {
    let caching = [(CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    (caching, Json(api_document())).into_response()
}

/// The API document as a page for people.
#[utoipa::path(
    get,
    path = "/api/docs",
    tag = "document",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(crate) async fn get_reference() -> Response {
    let document = serde_json::to_value(api_document()).unwrap_or_default();
    let policy = HeaderValue::try_from(reference::policy());
    let mut response = Html(reference::page(&document)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(policy) = policy {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}
