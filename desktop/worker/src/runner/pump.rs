//! Carries a job's output from its two pipes to the sink as it comes.

use std::time::Duration;

use bytes::BytesMut;
use lull_shared::output::Stream;
use tokio::{
    io::AsyncReadExt as _,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::OutputSink;
use crate::sandbox::Pipe;

/// Most bytes of one chunk.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// How long a pipe may stay silent once the job's processes are dead. Only a process that escaped the tree can hold it
/// open then, and the run does not wait for that.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long the sink may take for what a killed job left.
const KILLED_MAX: Duration = Duration::from_secs(5);

/// The two carriers.
pub(super) struct Pumps {
    tasks: JoinSet<()>,
    ended: watch::Sender<bool>,
}

impl Pumps {
    pub(super) fn start(stdout: Pipe, stderr: Pipe, sink: OutputSink) -> Self {
        let (ended, watching) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(Stream::Stdout, stdout, sink.clone(), watching.clone()));
        tasks.spawn(carry(Stream::Stderr, stderr, sink, watching));
        Self { tasks, ended }
    }

    /// Waits until all output is with the sink. For after the job's processes are dead; a killed job's output is
    /// given up when the sink does not take it.
    pub(super) async fn finish(mut self, exited: bool) {
        self.ended.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if exited {
            all.await;
        } else {
            let _ = timeout(KILLED_MAX, all).await;
        }
    }
}

async fn carry(stream: Stream, mut pipe: Pipe, sink: OutputSink, mut ended: watch::Receiver<bool>) {
    let mut buffer = BytesMut::new();
    let mut wanted = true;
    loop {
        buffer.reserve(CHUNK_BYTES_MAX);
        let silent = async {
            let _ = ended.wait_for(|ended| *ended).await;
            sleep(SILENCE_MAX).await;
        };
        let count = tokio::select! {
            biased;
            count = pipe.read_buf(&mut buffer) => count,
            () = silent => return,
        };
        if !matches!(count, Ok(1..)) {
            return;
        }
        // Nobody listens: the job still must not hang on a full pipe.
        let chunk = buffer.split().freeze();
        wanted = wanted && sink.send((stream, chunk)).await.is_ok();
    }
}
