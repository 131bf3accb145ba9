//! Jobs for people and programs: submit, list, look at, cancel.

use axum::{Json, extract::State, http::StatusCode};
use lull_shared::{
    ids::Digest,
    jobs::{CancelJob, CreateJob, Job, JobFilter, JobList, JobQuery},
    problem::{Problem, ProblemKind},
};

use crate::{
    auth::Caller,
    routes::{
        AppState,
        problem::{ApiError, ApiJson, ApiQuery},
        submission,
    },
    store::PAGE_MAX,
};

/// Submit a job.
///
/// The reply comes once the job is on disk. The same idempotency key with the same body gives the same job with
/// 200, so a submission whose reply was lost can be sent again. A zip must have been uploaded before; one that
/// breaks a rule of archives is refused here, before anything is created.
#[utoipa::path(
    post,
    path = "/api/jobs/create",
    tag = "jobs",
    request_body = CreateJob,
    responses(
        (status = 201, description = "The new job", body = Job),
        (status = 200, description = "The job that the same submission made before", body = Job),
        (status = 409, description = "`conflict`: the idempotency key was used for another submission", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`file_missing` or `archive_refused`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_job(
    State(state): State<AppState>,
    caller: Caller,
    ApiJson(request): ApiJson<CreateJob>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    submission::check(&request)?;
    if let Some(digest) = request.file_digest {
        check_file(&state, digest).await?;
    }
    let created = state.scheduler.create_job(request, &caller.submitter()).await?;
    let status = if created.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(created.job)))
}

/// Refuses a file that was not uploaded or whose archive breaks a rule.
async fn check_file(state: &AppState, digest: Digest) -> Result<(), ApiError> {
    if state.reads.blob_size(digest).await?.is_none() {
        let detail = format!("fileDigest: {digest} has not been uploaded");
        return Err(ApiError::refused(ProblemKind::FileMissing, detail));
    }
    state.archives.check(digest, state.blobs.local_path(digest)?).await
}

/// List jobs: the older name of `GET /api/jobs`.
#[utoipa::path(
    get,
    path = "/api/jobs/create",
    tag = "jobs",
    params(JobFilter),
    responses((status = 200, description = "A page of jobs, newest first", body = JobList)),
)]
pub(crate) async fn list_created_jobs(
    state: State<AppState>,
    filter: ApiQuery<JobFilter>,
) -> Result<Json<JobList>, ApiError> {
    list_jobs(state, filter).await
}

/// List jobs, newest first, a page at a time.
#[utoipa::path(
    get,
    path = "/api/jobs",
    tag = "jobs",
    params(JobFilter),
    responses((status = 200, description = "A page of jobs, newest first", body = JobList)),
)]
pub(crate) async fn list_jobs(
    State(state): State<AppState>,
    ApiQuery(filter): ApiQuery<JobFilter>,
) -> Result<Json<JobList>, ApiError> {
    if filter.limit.is_some_and(|limit| !(1..=PAGE_MAX).contains(&limit)) {
        return Err(ApiError::invalid(format!("limit: from 1 to {PAGE_MAX}")));
    }
    Ok(Json(state.reads.jobs(&filter).await?))
}

/// Look at one job, with its attempts, artifacts and the end of its output.
#[utoipa::path(
    get,
    path = "/api/jobs/status",
    tag = "jobs",
    params(JobQuery),
    responses(
        (status = 200, description = "The job as it stands", body = Job),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn find_job(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<JobQuery>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(state.reads.job(query.job_id).await?))
}

/// Cancel a job.
///
/// A waiting job is cancelled at once. A running one is marked; its worker ends it and reports back. Cancelling a
/// cancelled job changes nothing.
#[utoipa::path(
    post,
    path = "/api/jobs/cancel",
    tag = "jobs",
    request_body = CancelJob,
    responses(
        (status = 200, description = "The job as it now stands", body = Job),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the job ended before", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel_job(
    State(state): State<AppState>,
    ApiJson(request): ApiJson<CancelJob>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(state.scheduler.cancel(request.job_id).await?))
}
