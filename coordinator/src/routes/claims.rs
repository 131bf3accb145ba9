//! Claiming: a worker asks for jobs and waits until there are some.

use std::time::Duration;

use axum::{Json, extract::State};
use lull_shared::jobs::{ClaimQuery, ClaimReply};

use crate::{
    auth::WorkerCaller,
    routes::{
        AppState,
        problem::{ApiError, ApiQuery},
    },
};

const WAIT_SECS_MAX: u32 = 60;

/// Claim jobs, waiting for one when there is none.
///
/// Each claimed job starts its next attempt with a lease. The list is empty when nothing came in time.
#[utoipa::path(
    get,
    path = "/api/jobs/get-job",
    tag = "work",
    params(ClaimQuery),
    responses((status = 200, description = "The claimed jobs", body = ClaimReply)),
)]
pub(crate) async fn claim_jobs(
    State(state): State<AppState>,
    worker: WorkerCaller,
    ApiQuery(query): ApiQuery<ClaimQuery>,
) -> Result<Json<ClaimReply>, ApiError> {
    if query.wait > WAIT_SECS_MAX {
        return Err(ApiError::invalid(format!("wait: at most {WAIT_SECS_MAX} seconds")));
    }
    let max = query.max.unwrap_or(1);
    if max == 0 {
        return Err(ApiError::invalid("max: at least 1"));
    }
    let wait = Duration::from_secs(query.wait.into());
    let claim = state.scheduler.claim(worker.0, max, wait);
    // A poll that a shutdown ends took nothing: the worker asks again.
    let reply = state.shutdown.run_until_cancelled(claim).await;
    Ok(Json(reply.transpose()?.unwrap_or_default()))
}
