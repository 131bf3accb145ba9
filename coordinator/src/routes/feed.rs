//! What changes in the pool, as server-sent events.

use std::convert::Infallible;

use async_stream::stream;
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName},
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::Stream as Events;
use lull_shared::{events::PoolEvent, problem::Problem};

use crate::{
    routes::{AppState, events::KEEP_ALIVE_EVERY, problem::ApiError},
    scheduler::FeedCursor,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How many changes are read at once.
const PAGE: usize = 256;

/// Follow what changes in the pool.
///
/// The reply is a stream of `PoolEvent`s. It begins with `reset` unless `Last-Event-ID` names a place that is still
/// known: read everything anew then; what follows is what changes from there on.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "jobs",
    params(("last-event-id" = Option<String>, Header, description = "Resume after this event")),
    responses(
        (status = 200, description = "Changes, for as long as the reader stays", body = PoolEvent, content_type = "text/event-stream"),
        (status = 400, description = "`invalid`: not an id of this stream", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn follow_pool(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = match headers.get(LAST_EVENT_ID) {
        Some(id) => Some(
            id.to_str()
                .ok()
                .and_then(|id| id.parse().ok())
                .ok_or_else(|| ApiError::invalid("Last-Event-ID: not an id of this stream"))?,
        ),
        None => None,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_EVERY).text("still here");
    Ok(Sse::new(follow(state, after)).keep_alive(keep_alive).into_response())
}

fn follow(
    state: AppState,
    after: Option<FeedCursor>,
) -> impl Events<Item = Result<Event, Infallible>> + Send + 'static {
    stream! {
        let feed = state.scheduler.feed();
        let mut after = after;
        loop {
            let known = after.and_then(|cursor| feed.after(cursor, PAGE).map(|page| (cursor, page)));
            let Some((cursor, page)) = known else {
                let now = feed.now();
                after = Some(now);
                yield Ok(event(&PoolEvent::Reset, now));
                continue;
            };
            if page.is_empty() {
                if state.shutdown.run_until_cancelled(feed.changed(cursor)).await.is_none() {
                    break;
                }
                continue;
            }
            for (place, change) in page {
                after = Some(place);
                yield Ok(event(&change, place));
            }
        }
    }
}

fn event(change: &PoolEvent, place: FeedCursor) -> Event {
    let name = match change {
        PoolEvent::Reset => "reset",
        PoolEvent::Job { .. } => "job",
        PoolEvent::Worker { .. } => "worker",
    };
    let json = serde_json::to_string(change).expect("wire types have string keys only");
    Event::default().event(name).data(json).id(place.to_string())
}
