//! A job's output: the stored bytes, or everything that happens to the job as it happens.

use async_stream::stream;
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response, sse::Event},
};
use futures_util::Stream as Events;
use lull_shared::{
    ids::JobId,
    output::{OutputQuery, OutputView, Stream},
    problem::Problem,
};

use crate::{
    model::{JobEvent, OutputCursor},
    routes::{
        AppState,
        events::{self, Form},
        problem::{ApiError, ApiQuery},
    },
    store::StoreError,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("x-lull-attempt");
const DROPPED: HeaderName = HeaderName::from_static("x-lull-dropped-bytes");
/// How much output is read at once for a follower.
const PAGE_BYTES: usize = 256 * 1024;

/// Follow a job's output, or fetch what is stored of it.
///
/// With `Accept: text/event-stream` the reply is a stream of `OutputEvent`s from the first attempt's first byte, or after
/// `Last-Event-ID`, to the job's end. Otherwise it is the bytes of one stream of one attempt; `x-lull-attempt` says
/// which and `x-lull-dropped-bytes` how many bytes between head and tail were not kept.
#[utoipa::path(
    get,
    path = "/api/jobs/output",
    tag = "jobs",
    params(
        OutputQuery,
        ("last-event-id" = Option<String>, Header, description = "Events only: resume after this event"),
    ),
    responses(
        (status = 200, description = "Events or bytes", content(
            (lull_shared::output::OutputEvent = "text/event-stream"),
            (Vec<u8> = "application/octet-stream"),
        )),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn follow_output(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<OutputQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/event-stream") {
        return stored_bytes(state, &query).await;
    }
    let after = match headers.get(LAST_EVENT_ID) {
        Some(id) => id
            .to_str()
            .ok()
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| ApiError::invalid("Last-Event-ID: not an id of this stream"))?,
        None => OutputCursor::default(),
    };
    let first = state.reads.events(query.job_id, after, PAGE_BYTES).await?;
    if first.is_empty() {
        // Nothing has happened yet, or there is no such job.
        state.reads.job(query.job_id).await?;
    }
    Ok(events::reply(follow(state, query.job_id, after, query.view.unwrap_or_default())))
}

/// Everything that happens to a job after the cursor, to its end.
fn follow(
    state: AppState,
    job: JobId,
    mut cursor: OutputCursor,
    view: OutputView,
) -> impl Events<Item = Event> + Send + 'static {
    stream! {
        let mut follower = state.scheduler.follow(job);
        let mut form = Form::new(view);
        loop {
            let page = match state.reads.events(job, cursor, PAGE_BYTES).await {
                Ok(page) => page,
                // The follower comes back with the last id it saw.
                Err(error) => return log(&error),
            };
            if page.is_empty()
                && state.shutdown.run_until_cancelled(follower.changed()).await.is_none()
            {
                return;
            }
            for (after, happened) in page {
                cursor = after;
                let ended = matches!(happened, JobEvent::Ended { .. });
                let id = cursor.to_string();
                for sent in form.of(happened) {
                    yield events::event(&sent, Some(&id));
                }
                if ended {
                    return;
                }
            }
        }
    }
}

fn log(error: &StoreError) {
    tracing::warn!(%error, "could not go on following a job");
}

/// The bytes of one stream of one attempt, page by page.
async fn stored_bytes(state: AppState, query: &OutputQuery) -> Result<Response, ApiError> {
    let (job, stream) = (query.job_id, query.stream.unwrap_or(Stream::Stdout));
    let first = state.reads.output(job, query.attempt, stream, 0).await?;
    let (attempt, dropped) = (first.attempt, first.dropped);
    let bytes = stream! {
        let mut page = first;
        while !page.bytes.is_empty() {
            let next = page.next_offset();
            yield Ok::<Bytes, StoreError>(page.bytes);
            match state.reads.output(job, Some(attempt), stream, next).await {
                Ok(more) => page = more,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
    };
    let mut response = Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(ATTEMPT, attempt.into());
    headers.insert(DROPPED, dropped.into());
    Ok(response)
}
