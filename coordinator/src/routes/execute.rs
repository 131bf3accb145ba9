//! `POST /api/execute`: a file and commands in one multipart form, run on the pool or on this machine.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest as _, Multipart, Request, State, multipart::Field},
    response::{IntoResponse, Response},
};
use lull_shared::{
    execute::{ExecuteForm, ExecuteMode, ExecuteReply},
    jobs::{COMMAND_BYTES_MAX, CreateJob},
    output::{OutputEvent, OutputView},
    problem::{Problem, ProblemKind},
};
use serde::Deserialize;
use tokio::time;
use utoipa::IntoParams;

use crate::{
    auth::Caller,
    blobs::Staged,
    routes::{
        AppState, body, events,
        problem::{ApiError, ApiQuery},
        submission,
    },
};

/// A form that brings nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// In which form direct mode's events carry output.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExecuteQuery {
    /// Direct mode only: `raw` unless told.
    #[serde(default)]
    #[param(inline)]
    view: Option<OutputView>,
}

/// Run commands, with a zip in the same form.
///
/// `mode=distributed` creates a job for the pool and replies with its id. `mode=direct` runs the commands on the
/// coordinator's own machine, where that is allowed, and the reply streams `OutputEvent`s; it ends when the caller goes
/// away, and the `ended` event's job is not stored.
#[utoipa::path(
    post,
    path = "/api/execute",
    tag = "jobs",
    params(ExecuteQuery),
    request_body(content = ExecuteForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The job, or the events of a direct run", content(
            (ExecuteReply = "application/json"),
            (OutputEvent = "text/event-stream"),
        )),
        (status = 422, description = "`submission_refused` or `archive_refused`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited`: enough direct runs are under way; `queue_full`: as many of the user's jobs wait as may wait", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn execute_commands(
    State(state): State<AppState>,
    caller: Caller,
    ApiQuery(query): ApiQuery<ExecuteQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let form = Multipart::from_request(request, &())
        .await
        .map_err(|refused| ApiError::invalid(format!("the form: {}", refused.body_text())))?;
    let Form { mode, mut job, file } = Form::read(&state, form).await?;
    submission::check(&job)?;
    if let Some(file) = &file {
        state.archives.check(file.file().digest, file.local_path()?).await?;
    }
    match mode {
        ExecuteMode::Distributed => {
            if let Some(file) = file {
                let stored = file.keep().await?;
                state.scheduler.record_blob(stored).await?;
                job.file_digest = Some(stored.digest);
            }
            let created = state.scheduler.create_job(job, &caller.submitter()).await?;
            Ok(Json(ExecuteReply { job_id: created.job.job_id }).into_response())
        }
        ExecuteMode::Direct => {
            let direct = state.direct.as_ref().ok_or(ProblemKind::DirectModeOff)?;
            let run = direct.start(&state, job, file, caller.name)?;
            Ok(events::reply(run.events(query.view.unwrap_or_default())))
        }
    }
}

/// The form, read to its end. A file is on disk and not yet in the store.
struct Form {
    mode: ExecuteMode,
    job: CreateJob,
    file: Option<Staged>,
}

impl Form {
    async fn read(state: &AppState, mut form: Multipart) -> Result<Self, ApiError> {
        let mut read =
            Self { mode: ExecuteMode::Distributed, job: CreateJob::default(), file: None };
        while let Some(mut field) = in_time(form.next_field()).await? {
            match field.name().unwrap_or_default() {
                "commands" => read.job.command = text(field).await?.replace("\r\n", "\n"),
                "mode" => read.mode = mode(&text(field).await?)?,
                "outputs" => {
                    let patterns = text(field).await?;
                    let lines = patterns.lines().map(str::trim).filter(|line| !line.is_empty());
                    read.job.outputs = lines.map(str::to_owned).collect();
                }
                "file" if read.file.is_none() => {
                    if read.mode == ExecuteMode::Direct && state.direct.is_none() {
                        // Said before the upload, not after it.
                        return Err(ProblemKind::DirectModeOff.into());
                    }
                    let name = field.file_name().map(str::to_owned).filter(|n| !n.is_empty());
                    let file = store(state, &mut field).await?;
                    // A browser sends an empty part when no file was chosen.
                    if name.is_some() || file.file().size_bytes > 0 {
                        read.job.filename = name;
                        read.file = Some(file);
                    }
                }
                other => {
                    let detail = format!("the form: {other:?} is no field of it, or comes twice");
                    return Err(ApiError::invalid(detail));
                }
            }
        }
        if read.mode == ExecuteMode::Direct && state.direct.is_none() {
            return Err(ProblemKind::DirectModeOff.into());
        }
        Ok(read)
    }
}

async fn store(state: &AppState, field: &mut Field<'_>) -> Result<Staged, ApiError> {
    let mut upload = state.blobs.begin().await?;
    while let Some(chunk) = next_chunk(field).await? {
        if upload.size_bytes() + chunk.len() as u64 > state.upload_bytes_max {
            return Err(body::too_large(state.upload_bytes_max));
        }
        upload.write(chunk).await?;
    }
    Ok(upload.finish().await?)
}

async fn text(mut field: Field<'_>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(&mut field).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(body::too_large(COMMAND_BYTES_MAX as u64));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid("the form: a field is not UTF-8"))
}

fn mode(text: &str) -> Result<ExecuteMode, ApiError> {
    match text.trim() {
        "" | "distributed" => Ok(ExecuteMode::Distributed),
        "direct" => Ok(ExecuteMode::Direct),
        _ => Err(ApiError::invalid("mode: `distributed` or `direct`")),
    }
}

async fn next_chunk(field: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
    in_time(field.chunk()).await
}

async fn in_time<T>(
    reading: impl Future<Output = Result<T, axum::extract::multipart::MultipartError>>,
) -> Result<T, ApiError> {
    time::timeout(SILENCE_MAX, reading)
        .await
        .map_err(|_| ApiError::refused(ProblemKind::TimedOut, "the form stopped arriving"))?
        .map_err(|error| ApiError::invalid(format!("the form: {}", error.body_text())))
}
