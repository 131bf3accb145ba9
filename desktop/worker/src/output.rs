//! Takes an attempt's output to the coordinator while it runs: the first bytes at once, then what has gathered.
//!
//! Memory is bounded: what the coordinator does not take yet stays here up to a limit, then holds the job's writes back.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use lull_shared::{
    client::ClientError,
    jobs::{LeaseKey, OutputPart},
    output::{APPEND_BYTES_MAX, AppendQuery, AppendReply, Stream},
    problem::ProblemKind,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    api::{CoordinatorApi, Verdict, verdict},
    attempt::Wishes,
    backoff::Backoff,
    runner::{Control, KillReason},
    spool,
};

/// Most bytes that wait here before the job's writes are held back.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Less than this waits for company…
const WORTH_SENDING_BYTES: usize = 64 * 1024;
/// …but no longer than this after the last request.
const GATHER: Duration = Duration::from_millis(25);
/// How long a request on its way may take to be answered after the job ended.
const LAST_REPLY: Duration = Duration::from_millis(100);

/// Sends what comes until the source ends. Returns what the coordinator has not acknowledged.
///
/// A reply that says so ends the run: cancelled, or not this worker's any more.
pub(crate) async fn pump(
    api: Arc<dyn CoordinatorApi>,
    key: LeaseKey,
    mut source: mpsc::Receiver<(Stream, Bytes)>,
    control: Control,
    mut wishes: Wishes,
) -> Vec<OutputPart> {
    let mut lost = wishes.clone();
    let mut bytes_max = WAITING_BYTES_MAX;
    let mut waiting = Waiting::default();
    let mut backoff = Backoff::default();
    let mut send_at = Instant::now();
    let mut flight: Option<Flight> = None;
    loop {
        let due = Instant::now() >= send_at;
        if flight.is_none()
            && due
            && let Some((stream, offset, bytes)) = waiting.take()
        {
            send_at = Instant::now() + GATHER;
            flight = Some(Flight::start(Arc::clone(&api), key, stream, offset, bytes));
        }
        tokio::select! {
            chunk = source.recv(), if waiting.bytes < bytes_max => {
                let Some((stream, bytes)) = chunk else { break };
                waiting.push(stream, bytes);
                if waiting.bytes >= WORTH_SENDING_BYTES && backoff.is_fresh() {
                    send_at = Instant::now();
                }
            }
            reply = reply(&mut flight) => {
                if let Some(sent) = flight.take()
                    && waiting.settle(sent, &reply, &control) == Settled::Failed
                {
                    send_at = Instant::now() + backoff.next();
                } else {
                    backoff.reset();
                    if waiting.bytes >= WORTH_SENDING_BYTES {
                        send_at = Instant::now();
                    }
                }
            }
            () = sleep_until(send_at), if flight.is_none() && waiting.bytes > 0 => {}
            // Of a job that is being killed there is not much more to come, and nothing to hold back.
            _ = wishes.ended(), if bytes_max == WAITING_BYTES_MAX => bytes_max = usize::MAX,
            () = lost.lease_lost(), if !waiting.unwanted => {
                flight = None;
                waiting.forget();
            }
        }
    }
    if let Some(mut sent) = flight {
        match timeout(LAST_REPLY, &mut sent.reply).await {
            Ok(reply) => drop(waiting.settle(sent, &reply, &control)),
            Err(_) => waiting.put_back(sent.stream, sent.bytes),
        }
    }
    waiting.into_parts()
}

async fn reply(flight: &mut Option<Flight>) -> Result<AppendReply, ClientError> {
    match flight {
        Some(flight) => (&mut flight.reply).await,
        None => std::future::pending().await,
    }
}

/// A request on its way.
struct Flight {
    stream: Stream,
    offset: u64,
    bytes: Bytes,
    reply: BoxFuture<'static, Result<AppendReply, ClientError>>,
}

impl Flight {
    fn start(
        api: Arc<dyn CoordinatorApi>,
        key: LeaseKey,
        stream: Stream,
        offset: u64,
        bytes: Bytes,
    ) -> Self {
        let query = AppendQuery { job_id: key.job_id, attempt: key.attempt, stream, offset };
        let body = bytes.clone();
        let reply = Box::pin(async move { api.stream_output(&query, body).await });
        Self { stream, offset, bytes, reply }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Moved,
    Failed,
}

/// What was not acknowledged yet.
#[derive(Default)]
struct Waiting {
    stdout: OneStream,
    stderr: OneStream,
    /// Of both streams, with what is on its way.
    bytes: usize,
    /// Which stream was sent last, so that the other has its turn.
    last: Option<Stream>,
    /// Nobody wants it: it is taken and forgotten.
    unwanted: bool,
}

#[derive(Default)]
struct OneStream {
    /// Offset of the first byte that waits.
    offset: u64,
    chunks: VecDeque<Bytes>,
}

impl Waiting {
    fn push(&mut self, stream: Stream, bytes: Bytes) {
        if self.unwanted {
            return;
        }
        self.bytes += bytes.len();
        self.of(stream).chunks.push_back(bytes);
    }

    /// Takes as much of one stream as fits in a request.
    fn take(&mut self) -> Option<(Stream, u64, Bytes)> {
        let order = match self.last {
            Some(Stream::Stdout) => [Stream::Stderr, Stream::Stdout],
            Some(Stream::Stderr) | None => Stream::ALL,
        };
        let stream = order.into_iter().find(|stream| !self.of(*stream).chunks.is_empty())?;
        self.last = Some(stream);
        let waiting = self.of(stream);
        let bytes = waiting.gather(APPEND_BYTES_MAX);
        Some((stream, waiting.offset, bytes))
    }

    /// Takes note of what the coordinator said to a request.
    fn settle(
        &mut self,
        sent: Flight,
        reply: &Result<AppendReply, ClientError>,
        control: &Control,
    ) -> Settled {
        match reply {
            Ok(reply) => {
                if reply.cancel {
                    control.kill(KillReason::Cancelled);
                }
                self.go_on_from(reply.next_offset, sent);
                Settled::Moved
            }
            Err(ClientError::Problem(problem))
                if problem.kind == ProblemKind::OffsetMismatch && problem.next_offset.is_some() =>
            {
                let next = problem.next_offset.unwrap_or(sent.offset);
                tracing::warn!(
                    offset = sent.offset,
                    next_offset = next,
                    "output goes on elsewhere"
                );
                // Bytes the coordinator misses are gone; what there is goes on where it stands.
                self.of(sent.stream).offset = self.of(sent.stream).offset.min(next);
                self.go_on_from(next, sent);
                Settled::Moved
            }
            Err(error) if verdict(error) == Verdict::Fenced => {
                control.kill(KillReason::LeaseLost);
                self.forget();
                Settled::Moved
            }
            Err(error) => {
                tracing::debug!(error = %error, "output was not taken");
                self.put_back(sent.stream, sent.bytes);
                Settled::Failed
            }
        }
    }

    /// Nobody wants any of it.
    fn forget(&mut self) {
        *self = Self { unwanted: true, ..Self::default() };
    }

    /// Forgets what is acknowledged and keeps the rest of a request.
    fn go_on_from(&mut self, next_offset: u64, sent: Flight) {
        let start = self.of(sent.stream).offset;
        let taken = usize::try_from(next_offset.saturating_sub(start)).unwrap_or(usize::MAX);
        let taken = taken.min(sent.bytes.len());
        self.bytes -= taken;
        let waiting = self.of(sent.stream);
        waiting.offset += taken as u64;
        if taken < sent.bytes.len() {
            waiting.chunks.push_front(sent.bytes.slice(taken..));
        }
    }

    fn put_back(&mut self, stream: Stream, bytes: Bytes) {
        self.of(stream).chunks.push_front(bytes);
    }

    fn into_parts(mut self) -> Vec<OutputPart> {
        let mut parts = Vec::new();
        for stream in Stream::ALL {
            let waiting = self.of(stream);
            while !waiting.chunks.is_empty() {
                let bytes = waiting.gather(APPEND_BYTES_MAX);
                parts.push(spool::part(stream, waiting.offset, &bytes));
                waiting.offset += bytes.len() as u64;
            }
        }
        parts
    }

    const fn of(&mut self, stream: Stream) -> &mut OneStream {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl OneStream {
    /// Joins chunks up to a size; a single one is not copied.
    fn gather(&mut self, bytes_max: usize) -> Bytes {
        let Some(mut first) = self.chunks.pop_front() else { return Bytes::new() };
        if first.len() > bytes_max {
            let rest = first.split_off(bytes_max);
            self.chunks.push_front(rest);
            return first;
        }
        if self.chunks.front().is_none_or(|next| first.len() + next.len() > bytes_max) {
            return first;
        }
        let mut joined = BytesMut::from(first);
        while let Some(next) =
            self.chunks.pop_front_if(|next| joined.len() + next.len() <= bytes_max)
        {
            joined.extend_from_slice(&next);
        }
        joined.freeze()
    }
}

#[cfg(test)]
mod tests {
    use lull_shared::ids::JobId;

    use super::*;
    use crate::{
        attempt::Steering,
        testing::{Coordinator, Failure, Request, eventually},
    };

    /// A pump at work.
    struct Stage {
        coordinator: Coordinator,
        key: LeaseKey,
        sink: mpsc::Sender<(Stream, Bytes)>,
        steering: Steering,
        pump: tokio::task::JoinHandle<Vec<OutputPart>>,
    }

    impl Stage {
        fn set() -> Self {
            let coordinator = Coordinator::default();
            let key = LeaseKey { job_id: JobId::generate(), attempt: 1 };
            let (sink, source) = mpsc::channel(4);
            let (steering, steered) = Steering::new();
            let api: Arc<dyn CoordinatorApi> = Arc::new(coordinator.clone());
            let pump = tokio::spawn(pump(api, key, source, steered.control, steered.wishes));
            Self { coordinator, key, sink, steering, pump }
        }

        async fn send(&self, stream: Stream, text: &str) {
            self.sink.send((stream, Bytes::copy_from_slice(text.as_bytes()))).await.unwrap();
        }

        /// Ends the output; returns what was sent and what is left of standard output.
        async fn end(self) -> (String, Vec<OutputPart>) {
            drop(self.sink);
            let left = self.pump.await.unwrap();
            (self.coordinator.output_of(self.key, Stream::Stdout), left)
        }
    }

    fn text_of(parts: &[OutputPart]) -> String {
        let bytes: Vec<u8> = parts.iter().flat_map(spool::part_bytes).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_go_at_once_and_later_ones_together() {
        let stage = Stage::set();
        let began = Instant::now();
        stage.send(Stream::Stdout, "first ").await;
        let arrived = || stage.coordinator.count(Request::StreamOutput) == 1;
        eventually("the first bytes go", arrived).await;
        assert!(began.elapsed() < GATHER, "{:?}", began.elapsed());
        for _ in 0..500 {
            stage.send(Stream::Stdout, "x").await;
        }
        let (coordinator, key) = (stage.coordinator.clone(), stage.key);
        let all = || coordinator.output_of(key, Stream::Stdout).len() == 506;
        eventually("the rest arrives", all).await;
        assert!(coordinator.count(Request::StreamOutput) <= 3);
        assert_eq!(stage.end().await.1, []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_acknowledged_is_returned_with_its_offset() {
        let stage = Stage::set();
        stage.send(Stream::Stdout, "sent").await;
        let (coordinator, key) = (stage.coordinator.clone(), stage.key);
        eventually("it arrives", || coordinator.output_of(key, Stream::Stdout) == "sent").await;
        coordinator.fail_next(Request::StreamOutput, Failure::Hangs);
        stage.send(Stream::Stdout, " kept").await;
        eventually("it is tried", || coordinator.count(Request::StreamOutput) == 2).await;
        stage.send(Stream::Stdout, " too").await;
        stage.send(Stream::Stderr, "other").await;
        let (sent, left) = stage.end().await;
        assert_eq!(sent, "sent");
        let shape: Vec<_> = left.iter().map(|part| (part.stream, part.offset)).collect();
        assert_eq!(shape, [(Stream::Stdout, 4), (Stream::Stderr, 0)]);
        assert_eq!(text_of(&left), " kept tooother");
    }

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_that_is_further_or_less_far_is_followed() {
        let stage = Stage::set();
        stage.coordinator.fail_next(Request::StreamOutput, Failure::ReplyLost);
        stage.send(Stream::Stdout, "abc").await;
        let (coordinator, key) = (stage.coordinator.clone(), stage.key);
        // Only what is sent again is answered.
        coordinator.answered().await;
        assert_eq!(coordinator.count(Request::StreamOutput), 2);
        // It lost what it had acknowledged: nothing can bring that back, and the rest must not hang.
        coordinator.now().output.clear();
        stage.send(Stream::Stdout, "def").await;
        let rest = || coordinator.output_of(key, Stream::Stdout) == "def";
        eventually("the rest arrives where it stands", rest).await;
        assert_eq!(stage.end().await.1, []);
    }

    #[tokio::test(start_paused = true)]
    async fn l1_memory_is_bounded_while_nobody_takes_the_output() {
        let stage = Stage::set();
        stage.coordinator.now().away = true;
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        let mut taken = 0;
        let minute = Duration::from_secs(60);
        while timeout(minute, stage.sink.send((Stream::Stdout, chunk.clone()))).await.is_ok() {
            taken += chunk.len();
            assert!(taken <= 2 * WAITING_BYTES_MAX, "the job's writes are not held back");
        }
        assert!(taken >= WAITING_BYTES_MAX);
        stage.coordinator.now().away = false;
        let (coordinator, key) = (stage.coordinator.clone(), stage.key);
        let all = || coordinator.output_of(key, Stream::Stdout).len() == taken;
        eventually("everything arrives", all).await;
        assert_eq!(stage.end().await.1, []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_buffer_holds_nobody_whose_lease_is_lost() {
        let stage = Stage::set();
        stage.coordinator.now().away = true;
        let chunk = Bytes::from(vec![b'x'; 1024 * 1024]);
        let second = Duration::from_secs(1);
        while timeout(second, stage.sink.send((Stream::Stdout, chunk.clone()))).await.is_ok() {}
        stage.steering.end(KillReason::LeaseLost);
        for _ in 0..20 {
            timeout(second, stage.sink.send((Stream::Stdout, chunk.clone())))
                .await
                .unwrap()
                .unwrap();
        }
        assert_eq!(stage.end().await.1, []);
    }
}
