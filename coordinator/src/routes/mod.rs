//! The route table: the one place that lists every address the coordinator answers.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::Method,
    middleware::{from_fn, from_fn_with_state},
};
use lull_shared::problem::ProblemKind;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{OpenApi as _, openapi::OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    archives::Archives,
    auth::{self, KnownTokens},
    blobs::Blobs,
    direct::Direct,
    scheduler::Scheduler,
    store::StoreRead,
};

pub(crate) mod body;
pub mod problem;

mod claims;
mod docs;
mod edge;
pub(crate) mod events;
mod execute;
mod feed;
mod files;
mod health;
mod jobs;
mod output;
mod reference;
mod results;
mod submission;
mod ui;
mod workers;

pub use docs::api_document_json;

/// What a handler may use. It can read the store, but only the scheduler can change it.
#[derive(Clone)]
pub struct AppState {
    /// The only writer.
    pub scheduler: Arc<Scheduler>,
    /// The reading side of the store.
    pub reads: Arc<dyn StoreRead>,
    /// Who is let in.
    pub tokens: Arc<KnownTokens>,
    /// Files by digest.
    pub blobs: Blobs,
    /// Which archives have been found good.
    pub archives: Arc<Archives>,
    /// Runs commands on this machine itself, where that is allowed.
    pub direct: Option<Arc<Direct>>,
    /// Largest upload.
    pub upload_bytes_max: u64,
    /// Cancelled when the coordinator ends: what waits or streams ends then.
    pub shutdown: CancellationToken,
}

/// Every address with its handler, behind what every request passes.
pub fn router(state: AppState) -> Router {
    let (table, _document) = table().split_for_parts();
    table
        .fallback(ui::serve_page)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), auth::authorize))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(from_fn(edge::observe))
        .with_state(state)
}

/// The API document of the table.
#[must_use]
pub fn api_document() -> OpenApi {
    docs::complete(table().into_openapi())
}

fn table() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::ApiDoc::openapi())
        .routes(routes!(jobs::create_job, jobs::list_created_jobs))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::find_job))
        .routes(routes!(jobs::explain_job))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(jobs::hold_job))
        .routes(routes!(jobs::release_job))
        .routes(routes!(jobs::resubmit_job))
        .routes(routes!(feed::follow_pool))
        .routes(routes!(output::follow_output))
        .routes(routes!(execute::execute_commands))
        .routes(routes!(files::upload_file))
        .routes(routes!(files::download_file))
        .routes(routes!(workers::register_worker, workers::list_registered_workers))
        .routes(routes!(workers::list_workers))
        .routes(routes!(workers::send_heartbeat))
        .routes(routes!(workers::drain_worker))
        .routes(routes!(workers::release_worker))
        .routes(routes!(claims::claim_jobs))
        .routes(routes!(results::append_output))
        .routes(routes!(results::submit_result, results::report_failure))
        .routes(routes!(health::find_caller))
        .routes(routes!(health::check_health))
        .routes(routes!(health::check_readiness))
        .routes(routes!(docs::get_document))
        .routes(routes!(docs::get_reference))
}

async fn method_not_allowed(method: Method) -> problem::ApiError {
    let detail = format!("{method} is not one of its methods");
    problem::ApiError::refused(ProblemKind::MethodNotAllowed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::RIGHTS;

    /// The operations of the document, as `METHOD path`.
    fn documented() -> Vec<String> {
        let document = serde_json::to_value(api_document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        operations.collect()
    }

    #[test]
    fn every_operation_has_one_row_in_the_table_of_rights() {
        let mut rows: Vec<String> =
            RIGHTS.iter().map(|right| format!("{} {}", right.method, right.path)).collect();
        let mut operations = documented();
        rows.sort();
        operations.sort();
        assert_eq!(rows, operations);
    }

    #[test]
    fn every_operation_says_what_it_does_and_how_it_can_fail() {
        let document = serde_json::to_value(api_document()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap_or_default();
                assert!(name.contains('_'), "{method} {path} has no name: {name}");
                assert!(operation["summary"].is_string(), "{name} has no summary");
                assert!(operation["responses"]["default"].is_object(), "{name} hides its failures");
            }
        }
    }
}
