//! Shows a job's output as it comes, until the job ends.

use std::collections::HashMap;

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::StreamExt as _;
use lull_shared::{
    client::Client,
    ids::JobId,
    jobs::Job,
    output::{OutputEvent, OutputView, Stream},
    terminal::TerminalFilter,
};

use crate::{
    output::{Output, clean},
    table::{short, size},
    waiting::Waiting,
};

/// What Ctrl-C does while a job is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The first one cancels the job, the second one leaves.
    Cancels,
    /// Leaves the job alone.
    Leaves,
}

/// How the following ended.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The job ended.
    Ended(Box<Job>),
    /// The person left before that.
    Left,
}

/// Follows a job to its end. With `--json` every event is a line; otherwise output goes where the command wrote it.
pub(crate) async fn follow(
    client: &Client,
    output: &Output,
    job_id: JobId,
    raw: bool,
    interrupt: Interrupt,
) -> anyhow::Result<Followed> {
    let view = if output.json && !raw { OutputView::Terminal } else { OutputView::Raw };
    let told = output.clone();
    let mut events = client.follow_output_telling(job_id, view, move |error| {
        if told.is_watched() {
            told.note(&format!("{error}; trying again"));
        }
    });
    let mut shown = Shown { output, raw, filters: HashMap::new(), line_open: false };
    let mut waiting = Waiting::new(client, output, job_id);
    let mut started = false;
    let mut cancelling = false;
    let outcome = loop {
        tokio::select! {
            event = events.next() => {
                let event = event.context("the stream of output ended before the job")??;
                let is_start = matches!(event, OutputEvent::Started { .. } | OutputEvent::Ended { .. });
                if is_start {
                    started = true;
                    waiting.end();
                } else if matches!(event, OutputEvent::Requeued { .. }) {
                    started = false;
                    waiting.again();
                }
                if let Some(job) = shown.show(event)? {
                    break Followed::Ended(job);
                }
            }
            told = waiting.tell(), if !started && waiting.is_wanted() => match told? {},
            pressed = tokio::signal::ctrl_c() => {
                pressed.context("could not wait for Ctrl-C")?;
                waiting.hide();
                if interrupt == Interrupt::Leaves || cancelling {
                    break Followed::Left;
                }
                cancelling = true;
                output.note(&format!(
                    "cancelling job {}; press Ctrl-C again to leave without waiting", short(job_id)
                ));
                cancel(client, output, job_id);
            }
        }
    };
    shown.finish()?;
    Ok(outcome)
}

/// Asks for the end without holding up what still arrives.
pub(crate) fn cancel(client: &Client, output: &Output, job_id: JobId) {
    let (client, output) = (client.clone(), output.clone());
    tokio::spawn(async move {
        if let Err(error) = client.cancel_job(job_id).await {
            output.note(&format!("could not cancel: {error}"));
        }
    });
}

/// What has been written so far.
struct Shown<'a> {
    output: &'a Output,
    raw: bool,
    filters: HashMap<Stream, Option<TerminalFilter>>,
    /// The last byte on a terminal was not a newline.
    line_open: bool,
}

impl Shown<'_> {
    /// Shows one event; gives the job when it was the last.
    fn show(&mut self, event: OutputEvent) -> anyhow::Result<Option<Box<Job>>> {
        if self.output.json {
            self.output.value(&event)?;
            return Ok(if let OutputEvent::Ended { job } = event { Some(job) } else { None });
        }
        match event {
            OutputEvent::Started { attempt, hostname } => {
                self.note(&match attempt {
                    1 => format!("running on {}", clean(&hostname)),
                    _ => format!("running again from the beginning on {}", clean(&hostname)),
                });
            }
            OutputEvent::Output { stream, data, .. } => {
                let bytes = STANDARD.decode(data).context("the output is damaged")?;
                self.write(stream, &bytes)?;
            }
            OutputEvent::Dropped { stream, bytes, .. } => {
                let text = format!("{} of {} are not kept", size(bytes), stream.name());
                self.close_line();
                self.output.note(&text);
            }
            OutputEvent::Requeued { error_message, .. } => {
                let why = error_message.as_deref().unwrap_or("the PC gave it back");
                self.close_line();
                self.output.note(&format!("the job moves to another PC: {}", clean(why)));
            }
            OutputEvent::Ended { job } => return Ok(Some(job)),
        }
        Ok(None)
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) -> anyhow::Result<()> {
        let (output, raw) = (self.output, self.raw);
        let filter = self.filters.entry(stream).or_insert_with(|| output.filter(stream, raw));
        match filter {
            Some(filter) => {
                let text = filter.push(bytes);
                if let Some(last) = text.bytes().last() {
                    self.line_open = last != b'\n';
                }
                output.bytes(stream, text.as_bytes())
            }
            None => output.bytes(stream, bytes),
        }
    }

    /// A remark that only a person at a terminal wants.
    fn note(&mut self, text: &str) {
        if self.output.is_watched() {
            self.close_line();
            self.output.note(text);
        }
    }

    fn close_line(&mut self) {
        if std::mem::take(&mut self.line_open) {
            // Standard error stands on the same terminal; a failure shows at the next write.
            drop(self.output.bytes(Stream::Stderr, b"\n"));
        }
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        for (stream, filter) in &mut self.filters {
            if let Some(filter) = filter {
                self.output.bytes(*stream, filter.finish().as_bytes())?;
            }
        }
        self.close_line();
        Ok(())
    }
}
