//! Output events as server-sent events: their wire form, and the filter that makes them safe for a terminal.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::Stream as Events;
use lull_shared::{
    output::{OutputEvent, OutputView, Stream},
    terminal::TerminalFilter,
};

use crate::model::JobEvent;

/// How often a quiet stream says that it is still there.
pub(crate) const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// The reply that carries events for as long as they come.
pub(crate) fn reply(events: impl Events<Item = Event> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;

    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_EVERY).text("still here");
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response()
}

/// One event with the id to resume after.
pub(crate) fn event(event: &OutputEvent, id: Option<&str>) -> Event {
    let name = match event {
        OutputEvent::Started { .. } => "started",
        OutputEvent::Output { .. } => "output",
        OutputEvent::Dropped { .. } => "dropped",
        OutputEvent::Requeued { .. } => "requeued",
        OutputEvent::Ended { .. } => "ended",
    };
    let json = serde_json::to_string(event).expect("wire types have string keys only");
    let sent = Event::default().event(name).data(json);
    match id {
        Some(id) => sent.id(id),
        None => sent,
    }
}

/// Turns what happened into what is sent. One for each follower: a terminal's filters remember colours.
pub(crate) struct Form {
    view: OutputView,
    filters: HashMap<(u32, Stream), Filtered>,
}

#[derive(Default)]
struct Filtered {
    filter: TerminalFilter,
    next_offset: u64,
}

impl Form {
    pub(crate) fn new(view: OutputView) -> Self {
        Self { view, filters: HashMap::new() }
    }

    /// The events to send for one that happened: none when nothing of it may be shown, more than one when
    /// something was held back before.
    pub(crate) fn of(&mut self, event: JobEvent) -> Vec<OutputEvent> {
        match event {
            JobEvent::Started { attempt, hostname } => {
                vec![OutputEvent::Started { attempt, hostname }]
            }
            JobEvent::Output { attempt, stream, offset, bytes } => {
                self.output(attempt, stream, offset, &bytes)
            }
            JobEvent::Dropped { attempt, stream, bytes } => {
                let mut events = self.rest_of(|one| *one == (attempt, stream));
                events.push(OutputEvent::Dropped { attempt, stream, bytes });
                events
            }
            JobEvent::Requeued { attempt, ending, error_message } => {
                let mut events = self.rest_of(|(one, _)| *one == attempt);
                events.push(OutputEvent::Requeued { attempt, ending, error_message });
                events
            }
            JobEvent::Ended { job } => {
                let mut events = self.rest_of(|_| true);
                events.push(OutputEvent::Ended { job });
                events
            }
        }
    }

    fn output(
        &mut self,
        attempt: u32,
        stream: Stream,
        offset: u64,
        bytes: &[u8],
    ) -> Vec<OutputEvent> {
        let data = match self.view {
            OutputView::Raw => STANDARD.encode(bytes),
            OutputView::Terminal => {
                let filtered = self.filters.entry((attempt, stream)).or_default();
                filtered.next_offset = offset + bytes.len() as u64;
                filtered.filter.push(bytes)
            }
        };
        if data.is_empty() {
            return Vec::new();
        }
        vec![OutputEvent::Output { attempt, stream, offset, data }]
    }

    /// Ends the chosen streams' filters: what they held back, and the end of a colour.
    fn rest_of(&mut self, chosen: impl Fn(&(u32, Stream)) -> bool) -> Vec<OutputEvent> {
        let mut rest = Vec::new();
        self.filters.retain(|key, filtered| {
            if !chosen(key) {
                return true;
            }
            let data = filtered.filter.finish();
            if !data.is_empty() {
                let ((attempt, stream), offset) = (*key, filtered.next_offset);
                rest.push(OutputEvent::Output { attempt, stream, offset, data });
            }
            false
        });
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes: &'static [u8]) -> JobEvent {
        JobEvent::Output { attempt: 1, stream: Stream::Stdout, offset: 0, bytes: bytes.into() }
    }

    fn data(events: &[OutputEvent]) -> String {
        let texts = events.iter().filter_map(|event| {
            if let OutputEvent::Output { data, .. } = event { Some(data.as_str()) } else { None }
        });
        texts.collect()
    }

    #[test]
    fn l2_raw_output_is_carried_as_it_came() {
        let mut form = Form::new(OutputView::Raw);
        assert_eq!(data(&form.of(output(b"\x1b]0;title\x07\xff"))), "G10wO3RpdGxlB/8=");
    }

    #[test]
    fn a_terminal_gets_no_sequence_that_was_split_between_two_events() {
        let mut form = Form::new(OutputView::Terminal);
        assert_eq!(data(&form.of(output(b"a\x1b]52;c;ev"))), "a");
        assert!(form.of(output(b"il\x07")).is_empty(), "nothing of it may be shown");
        assert_eq!(data(&form.of(output(b"b"))), "b");
    }

    #[test]
    fn a_colour_ends_with_its_attempt() {
        let mut form = Form::new(OutputView::Terminal);
        form.of(output(b"\x1b[31mred"));
        let ending = lull_shared::jobs::AttemptEnding::WorkerLost;
        let events = form.of(JobEvent::Requeued { attempt: 1, ending, error_message: None });
        assert_eq!(data(&events), "\x1b[0m");
        assert_eq!(events.len(), 2);
    }
}
