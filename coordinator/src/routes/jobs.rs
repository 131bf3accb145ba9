//! Jobs for people and programs: submit, list, look at, cancel.

use axum::{Json, extract::State, http::StatusCode};
use lull_shared::{
    ids::Digest,
    jobs::{CreateJob, Explanation, ITEMS_BYTES_MAX, Job, JobFilter, JobList, JobQuery, JobRef},
    problem::{Problem, ProblemKind},
};

use crate::{
    auth::Caller,
    routes::{
        AppState, body,
        problem::{ApiError, ApiJson, ApiQuery},
        submission,
    },
    store::PAGE_MAX,
};

/// Largest submission: the items of an array are most of it.
const SUBMISSION_BYTES_MAX: usize = ITEMS_BYTES_MAX + body::JSON_BYTES_MAX;

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
        (status = 422, description = "`submission_refused`: a value breaks a rule or a limit; `key_reused`: the idempotency key was used for another submission; `file_missing` or `archive_refused`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`queue_full`: as many of the user's jobs wait as may wait", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_job(
    State(state): State<AppState>,
    caller: Caller,
    ApiJson(request): ApiJson<CreateJob, SUBMISSION_BYTES_MAX>,
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
    request_body = JobRef,
    responses(
        (status = 200, description = "The job as it now stands", body = Job),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the job ended before", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel_job(
    State(state): State<AppState>,
    ApiJson(request): ApiJson<JobRef>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(state.scheduler.cancel(request.job_id).await?))
}

/// Say why a job waits.
///
/// In words, and in numbers of PCs and of jobs that come first.
#[utoipa::path(
    get,
    path = "/api/jobs/explain",
    tag = "jobs",
    params(JobQuery),
    responses(
        (status = 200, description = "Why it waits", body = Explanation),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn explain_job(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<JobQuery>,
) -> Result<Json<Explanation>, ApiError> {
    Ok(Json(state.scheduler.explain(query.job_id).await?))
}

/// Hold a waiting job.
///
/// It is not handed out until it is released. Of an array, what was not handed out yet is held.
#[utoipa::path(
    post,
    path = "/api/jobs/hold",
    tag = "jobs",
    request_body = JobRef,
    responses(
        (status = 200, description = "The job as it now stands", body = Job),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the job runs or has ended", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn hold_job(
    State(state): State<AppState>,
    ApiJson(request): ApiJson<JobRef>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(state.scheduler.set_held(request.job_id, true).await?))
}

/// Release a held job.
#[utoipa::path(
    post,
    path = "/api/jobs/release",
    tag = "jobs",
    request_body = JobRef,
    responses(
        (status = 200, description = "The job as it now stands", body = Job),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the job runs or has ended", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn release_job(
    State(state): State<AppState>,
    ApiJson(request): ApiJson<JobRef>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(state.scheduler.set_held(request.job_id, false).await?))
}

/// Submit an ended job again.
///
/// The new job asks for what the old one asked for; it waits for no other job and is not held.
#[utoipa::path(
    post,
    path = "/api/jobs/resubmit",
    tag = "jobs",
    request_body = JobRef,
    responses(
        (status = 201, description = "The new job", body = Job),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`conflict`: the job has not ended", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`queue_full`: as many of the user's jobs wait as may wait", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn resubmit_job(
    State(state): State<AppState>,
    caller: Caller,
    ApiJson(request): ApiJson<JobRef>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    let job = state.scheduler.resubmit(request.job_id, &caller.submitter()).await?;
    Ok((StatusCode::CREATED, Json(job)))
}
