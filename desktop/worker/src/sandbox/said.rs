//! The beginning of a job's standard error, kept while it passes: a sandbox's own program says there why it could not
//! run the job.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, ReadBuf},
    process::ChildStderr,
    sync::watch,
    time::timeout,
};

use super::Pipe;

/// This much is kept.
const BYTES_MAX: usize = 1000;
/// How long the end of a pipe is waited for whose writers are dead.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What was written first.
#[derive(Clone, Default)]
pub(super) struct Said {
    head: Arc<Mutex<Vec<u8>>>,
    ended: Arc<watch::Sender<bool>>,
}

impl Said {
    /// The pipe, read through this.
    pub(super) fn read(&self, pipe: ChildStderr) -> Pipe {
        Box::new(Kept { pipe, said: self.clone() })
    }

    /// What was said, once the pipe has ended.
    pub(super) async fn text(&self) -> String {
        let mut ended = self.ended.subscribe();
        let _ = timeout(WAIT_MAX, ended.wait_for(|ended| *ended)).await;
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&head).trim().to_owned()
    }
}

/// All that a pipe has, for one that nobody else reads.
pub(super) async fn all(pipe: ChildStderr) -> String {
    let mut text = Vec::new();
    let _ = timeout(WAIT_MAX, pipe.take(BYTES_MAX as u64).read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// A pipe whose beginning is kept.
struct Kept {
    pipe: ChildStderr,
    said: Said,
}

impl AsyncRead for Kept {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.pipe).poll_read(context, buffer));
        let new = &buffer.filled()[before..];
        if new.is_empty() {
            self.said.ended.send_replace(true);
        } else {
            let mut head = self.said.head.lock().unwrap_or_else(PoisonError::into_inner);
            let room = BYTES_MAX - head.len();
            head.extend_from_slice(&new[..new.len().min(room)]);
        }
        Poll::Ready(read)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.said.ended.send_replace(true);
    }
}
