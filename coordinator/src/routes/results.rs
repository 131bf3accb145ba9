//! What a worker reports about an attempt: its output as it comes, and how it ended.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use futures_util::future::join_all;
use lull_shared::{
    files::Artifact,
    jobs::{
        RESULTS_MAX, ReportFailure, ResultOutcome, ResultReplies, ResultReply, Results,
        SubmitResult,
    },
    output::{APPEND_BYTES_MAX, AppendQuery, AppendReply},
    problem::Problem,
};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    auth::WorkerCaller,
    routes::{
        AppState, body,
        problem::{ApiError, ApiJson, ApiQuery, read_json},
    },
};

const ARTIFACTS_MAX: usize = 64;
const ARTIFACT_NAME_BYTES_MAX: usize = 255;

/// Append bytes to a stream of a running attempt.
///
/// The body is the bytes as they came, at most 1 MiB. Bytes that are stored already are skipped, so a request whose
/// reply was lost can be sent again.
#[utoipa::path(
    post,
    path = "/api/jobs/stream-output",
    tag = "work",
    params(AppendQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "How far the stream is stored", body = AppendReply),
        (status = 409, description = "`lease_lost`, or `offset_mismatch` with `nextOffset`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn append_output(
    State(state): State<AppState>,
    worker: WorkerCaller,
    ApiQuery(query): ApiQuery<AppendQuery>,
    request: Body,
) -> Result<Json<AppendReply>, ApiError> {
    let bytes = body::read(request, APPEND_BYTES_MAX).await?;
    Ok(Json(state.scheduler.append_output(worker.0, query, bytes.into()).await?))
}

/// Report that the command ran; of several attempts in one request, if need be.
///
/// Of several, each is recorded or refused by itself.
#[utoipa::path(
    post,
    path = "/api/jobs/submit-result",
    tag = "work",
    request_body = Results,
    responses(
        (status = 200, description = "Recorded, now or by the same report before; of several, what became of each", content(
            (ResultReply = "application/json"),
            (ResultReplies = "application/json"),
        )),
        (status = 409, description = "`lease_lost` or `offset_mismatch`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`file_missing`: an artifact was not uploaded", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn submit_result(
    State(state): State<AppState>,
    worker: WorkerCaller,
    request: Body,
) -> Result<Response, ApiError> {
    match read_results(&body::read(request, body::JSON_BYTES_MAX).await?)? {
        Results::One(result) => Ok(Json(submit_one(&state, worker, result).await?).into_response()),
        Results::Several(several) => {
            if several.results.len() > RESULTS_MAX {
                return Err(ApiError::invalid(format!("results: at most {RESULTS_MAX}")));
            }
            let all = several.results.into_iter().map(|result| submit_one(&state, worker, result));
            let replies = join_all(all).await.into_iter().map(|reply| match reply {
                Ok(reply) => ResultOutcome::Recorded(reply),
                Err(error) => ResultOutcome::Refused(error.problem()),
            });
            Ok(Json(ResultReplies { replies: replies.collect() }).into_response())
        }
    }
}

/// One result or several: several have a field of that name.
fn read_results(bytes: &[u8]) -> Result<Results, ApiError> {
    #[derive(Deserialize)]
    struct Form {
        results: Option<IgnoredAny>,
    }
    let form: Result<Form, _> = serde_json::from_slice(bytes);
    if form.is_ok_and(|form| form.results.is_some()) {
        read_json(bytes).map(Results::Several)
    } else {
        read_json(bytes).map(Results::One)
    }
}

async fn submit_one(
    state: &AppState,
    worker: WorkerCaller,
    result: SubmitResult,
) -> Result<ResultReply, ApiError> {
    check_artifacts(&result.artifacts)?;
    Ok(state.scheduler.submit_result(worker.0, result).await?)
}

fn check_artifacts(artifacts: &[Artifact]) -> Result<(), ApiError> {
    if artifacts.len() > ARTIFACTS_MAX {
        return Err(ApiError::invalid(format!("artifacts: at most {ARTIFACTS_MAX}")));
    }
    for (index, Artifact { name, .. }) in artifacts.iter().enumerate() {
        let plain = !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
        if !(1..=ARTIFACT_NAME_BYTES_MAX).contains(&name.len()) || !plain {
            let rule = format!("artifacts[{index}].name: a file name without folders");
            return Err(ApiError::invalid(rule));
        }
    }
    Ok(())
}

/// Report a failure that is not the command's own.
///
/// The kind decides whether the job is tried elsewhere.
#[utoipa::path(
    put,
    path = "/api/jobs/submit-result",
    tag = "work",
    request_body = ReportFailure,
    responses(
        (status = 200, description = "Recorded, now or by the same report before", body = ResultReply),
        (status = 409, description = "`lease_lost`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn report_failure(
    State(state): State<AppState>,
    worker: WorkerCaller,
    ApiJson(request): ApiJson<ReportFailure>,
) -> Result<Json<ResultReply>, ApiError> {
    Ok(Json(state.scheduler.report_failure(worker.0, request).await?))
}
