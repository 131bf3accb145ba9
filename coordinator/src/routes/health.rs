//! Whether the coordinator lives and works, and who is asking.

use axum::{Json, extract::State, http::StatusCode};
use lull_shared::{credentials::WhoAmI, problem::Problem};

use crate::{
    auth::Caller,
    routes::{AppState, problem::ApiError},
    store::StoreError,
};

/// Whether the process answers. Says nothing about the database.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(crate) async fn check_health() -> &'static str {
    "ok\n"
}

/// Whether requests can be served: the database can be read and written, and no shutdown is under way.
///
/// When it cannot, the reply says why, and the same request succeeds once it can again.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "They can", body = String, content_type = "text/plain"),
        (status = 503, description = "`unavailable`: the database does not answer, or a shutdown is under way", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "`disk_full`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn check_readiness(
    State(state): State<AppState>,
) -> Result<(StatusCode, &'static str), ApiError> {
    state.reads.ready().await.map_err(with_reason)?;
    if state.shutdown.is_cancelled() {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"));
    }
    Ok((StatusCode::OK, "ready\n"))
}

/// A failure that tells its cause, which other replies keep to the log.
fn with_reason(error: StoreError) -> ApiError {
    let reason = error.to_string();
    let kind = ApiError::from(error).problem().kind;
    ApiError::refused(kind, reason)
}

/// Whose token this is and what it allows.
#[utoipa::path(
    get,
    path = "/api/whoami",
    tag = "health",
    responses((status = 200, description = "The token's name and role", body = WhoAmI)),
)]
pub(crate) async fn find_caller(State(state): State<AppState>, caller: Caller) -> Json<WhoAmI> {
    Json(WhoAmI {
        name: caller.name,
        role: caller.role,
        expires_at: caller.expires_at,
        direct_mode: state.direct.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
