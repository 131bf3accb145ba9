//! Following a job's output, or what changes in the pool, over as many connections as it takes.

use std::{
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use reqwest::{Body, Method, RequestBuilder, header::ACCEPT, multipart};
use serde::de::DeserializeOwned;
use tokio::time;

use super::{
    Client, ClientError,
    error::{accept, classify, origin},
    files::counted,
    sse::{SseEvent, SseParser},
};
use crate::{
    events::PoolEvent,
    output::{OutputEvent, OutputQuery, OutputView},
};

/// The coordinator sends a sign of life every 15 s; this long without one and the connection is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const EVENT_STREAM: &str = "text/event-stream";

/// A stream of events that the coordinator gives at one address.
pub(super) trait Source: fmt::Debug + Send + Sync + 'static {
    /// What it is made of.
    type Event: DeserializeOwned + Send;
    const PATH: &'static str;
    /// The names of the events this version knows; those of a newer coordinator are passed over.
    const NAMES: &'static [&'static str];
    /// What went wrong when a connection ends before the last event.
    const EARLY_END: &'static str;

    /// Adds what the address is asked for.
    fn shape(&self, request: RequestBuilder) -> RequestBuilder;
    /// Whether nothing follows the event.
    fn is_last(event: &Self::Event) -> bool;
}

impl Source for OutputQuery {
    type Event = OutputEvent;
    const PATH: &'static str = "/api/jobs/output";
    const NAMES: &'static [&'static str] = &["started", "output", "dropped", "requeued", "ended"];
    const EARLY_END: &'static str = "it ended the stream of output before the job ended";

    fn shape(&self, request: RequestBuilder) -> RequestBuilder {
        request.query(self)
    }

    fn is_last(event: &OutputEvent) -> bool {
        matches!(event, OutputEvent::Ended { .. })
    }
}

/// What changes in the pool.
#[derive(Debug)]
pub(super) struct PoolFeed;

impl Source for PoolFeed {
    type Event = PoolEvent;
    const PATH: &'static str = "/api/events";
    const NAMES: &'static [&'static str] = &["reset", "job", "worker"];
    const EARLY_END: &'static str = "it ended the stream of events";

    fn shape(&self, request: RequestBuilder) -> RequestBuilder {
        request
    }

    fn is_last(_event: &PoolEvent) -> bool {
        false
    }
}

/// An event with the id to resume after.
type Placed<E> = (E, Option<String>);

/// A stream of events being followed.
pub(super) struct Follow<S: Source> {
    client: Client,
    source: S,
    disconnected: Box<dyn FnMut(&ClientError) + Send>,
    events: Option<Events<S>>,
    last_id: Option<String>,
    backoff: Duration,
    over: bool,
}

impl<S: Source> Follow<S> {
    pub(super) fn new(
        client: Client,
        source: S,
        disconnected: Box<dyn FnMut(&ClientError) + Send>,
    ) -> Self {
        let (events, last_id) = (None, None);
        Self { client, source, disconnected, events, last_id, backoff: BACKOFF_MIN, over: false }
    }

    pub(super) fn into_stream(self) -> BoxStream<'static, Result<S::Event, ClientError>> {
        stream::unfold(self, |mut follow| async move {
            let event = follow.next().await?;
            Some((event, follow))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<S::Event, ClientError>> {
        if self.over {
            return None;
        }
        loop {
            let lost = match self.step().await {
                Ok(Some(event)) => {
                    self.over = S::is_last(&event);
                    self.backoff = BACKOFF_MIN;
                    return Some(Ok(event));
                }
                Ok(None) => ClientError::unreachable(self.client.address(), S::EARLY_END),
                Err(error) if error.is_transient() => error,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            };
            self.events = None;
            (self.disconnected)(&lost);
            time::sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn step(&mut self) -> Result<Option<S::Event>, ClientError> {
        if self.events.is_none() {
            let response = self
                .client
                .open(Method::GET, S::PATH, |request| {
                    let request = self.source.shape(request).header(ACCEPT, EVENT_STREAM);
                    match &self.last_id {
                        Some(id) => request.header("last-event-id", id),
                        None => request,
                    }
                })
                .await?;
            self.events = Some(Events::new(accept(response).await?));
        }
        let events = self.events.as_mut().expect("it was opened above");
        let Some((event, id)) = events.next().await? else { return Ok(None) };
        if id.is_some() {
            self.last_id = id;
        }
        Ok(Some(event))
    }
}

impl<S: Source> fmt::Debug for Follow<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("source", &self.source).finish_non_exhaustive()
    }
}

/// The events of one connection.
struct Events<S: Source> {
    response: reqwest::Response,
    address: String,
    parser: SseParser,
    ready: VecDeque<SseEvent>,
    source: PhantomData<fn() -> S>,
}

impl<S: Source> Events<S> {
    fn new(response: reqwest::Response) -> Self {
        let (parser, ready) = (SseParser::default(), VecDeque::new());
        Self { address: origin(&response), response, parser, ready, source: PhantomData }
    }

    /// The next event; none when the connection ended.
    async fn next(&mut self) -> Result<Option<Placed<S::Event>>, ClientError> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if let Some(read) = self.read(event)? {
                    return Ok(Some(read));
                }
            }
            let chunk = time::timeout(SILENCE_LIMIT, self.response.chunk())
                .await
                .map_err(|_| ClientError::unreachable(&self.address, "it fell silent"))?
                .map_err(|error| classify(&self.address, error))?;
            let Some(chunk) = chunk else { return Ok(None) };
            let events = self.parser.push(&chunk).map_err(|error| self.protocol(error))?;
            self.ready.extend(events);
        }
    }

    /// Reads one event; none for a kind that a newer coordinator sends and this version does not know.
    fn read(&self, event: SseEvent) -> Result<Option<Placed<S::Event>>, ClientError> {
        if !S::NAMES.contains(&event.name.as_str()) {
            return Ok(None);
        }
        let read = serde_json::from_str(&event.data).map_err(|error| self.protocol(error))?;
        Ok(Some((read, event.id)))
    }

    fn protocol(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        let source = Some(source.into());
        let what = "an event that is not what Lull sends".to_owned();
        ClientError::Protocol { address: self.address.clone(), what, source }
    }
}

pub(super) async fn execute_direct(
    client: &Client,
    commands: &str,
    outputs: &[String],
    zip: Option<&Path>,
    view: OutputView,
) -> Result<BoxStream<'static, Result<OutputEvent, ClientError>>, ClientError> {
    let zip = match zip {
        Some(path) => {
            let metadata = tokio::fs::metadata(path)
                .await
                .map_err(|source| ClientError::File { path: path.to_owned(), source })?;
            Some((path, metadata.len()))
        }
        None => None,
    };
    let view = match view {
        OutputView::Raw => "raw",
        OutputView::Terminal => "terminal",
    };
    let send = client.transport.send(|http, base| {
        let mut form = multipart::Form::new()
            .text("commands", commands.to_owned())
            .text("mode", "direct")
            .text("outputs", outputs.join("\n"));
        if let Some((path, size_bytes)) = zip {
            let sent = Arc::new(AtomicU64::new(0));
            let body = counted(path.to_owned(), size_bytes, sent, Arc::new(|_, _| {}));
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            form = form.part(
                "file",
                multipart::Part::stream_with_length(Body::wrap_stream(body), size_bytes)
                    .file_name(name.unwrap_or_else(|| "input.zip".to_owned())),
            );
        }
        let request = http
            .post(format!("{base}/api/execute"))
            .query(&[("view", view)])
            .header(ACCEPT, EVENT_STREAM)
            .multipart(form);
        client.signed(request)
    });
    let events = Events::<OutputQuery>::new(accept(send.await?).await?);
    Ok(stream::try_unfold(Some(events), |events| async move {
        let Some(mut events) = events else { return Ok(None) };
        match events.next().await? {
            Some((ended @ OutputEvent::Ended { .. }, _)) => Ok(Some((ended, None))),
            Some((event, _)) => Ok(Some((event, Some(events)))),
            None => Err(ClientError::unreachable(events.address, OutputQuery::EARLY_END)),
        }
    })
    .boxed())
}
