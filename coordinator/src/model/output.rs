//! Output and the events of a job.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use lull_shared::{
    ids::InvalidId,
    jobs::{AttemptEnding, Job},
    output::Stream,
};

/// Bytes of one stream and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPiece {
    /// Which stream.
    pub stream: Stream,
    /// Offset of the first byte in that stream.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// How far a stream is stored after an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset the next bytes must carry.
    pub next_offset: u64,
    /// A person cancelled the job.
    pub cancel: bool,
}

/// One thing that happened to a job, with the bytes as they came.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEvent {
    /// An attempt began, or goes on after it had been given up.
    Started {
        /// Its number.
        attempt: u32,
        /// Where it runs.
        hostname: String,
    },
    /// Bytes of one stream.
    Output {
        /// The attempt they belong to.
        attempt: u32,
        /// Which stream.
        stream: Stream,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Bytes that are not kept lie between what came before and what follows.
    Dropped {
        /// The attempt.
        attempt: u32,
        /// Which stream.
        stream: Stream,
        /// How many bytes.
        bytes: u64,
    },
    /// An attempt ended without ending the job.
    Requeued {
        /// Its number.
        attempt: u32,
        /// How it ended.
        ending: AttemptEnding,
        /// Why, for a person.
        error_message: Option<String>,
    },
    /// The job reached its last state; nothing follows.
    Ended {
        /// The job as it now stands.
        job: Box<Job>,
    },
}

/// Where a follower of a job's events is: after which event, and how far into each stream, so that
/// bytes which left the store while it was away are counted exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputCursor {
    /// The last event seen.
    pub seq: i64,
    /// The attempt the offsets belong to.
    pub attempt: u32,
    /// The next byte of standard output.
    pub stdout: u64,
    /// The next byte of standard error.
    pub stderr: u64,
}

impl OutputCursor {
    /// The next byte of one stream.
    #[must_use]
    pub const fn next_offset(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Moves on in one stream.
    pub const fn set_next_offset(&mut self, stream: Stream, offset: u64) {
        match stream {
            Stream::Stdout => self.stdout = offset,
            Stream::Stderr => self.stderr = offset,
        }
    }
}

impl fmt::Display for OutputCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.seq, self.attempt, self.stdout, self.stderr)
    }
}

impl FromStr for OutputCursor {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut parts = text.split('-');
        let mut next = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(InvalidId);
        let cursor = Self {
            seq: i64::try_from(next()?).map_err(|_| InvalidId)?,
            attempt: u32::try_from(next()?).map_err(|_| InvalidId)?,
            stdout: next()?,
            stderr: next()?,
        };
        if parts.next().is_none() { Ok(cursor) } else { Err(InvalidId) }
    }
}

/// Part of one stream of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPage {
    /// The attempt the bytes belong to.
    pub attempt: u32,
    /// The bytes; empty at the end of what is stored.
    pub bytes: Bytes,
    /// Offset of the first of them; larger than asked for when bytes before it are not kept.
    pub offset: u64,
    /// How many bytes of the whole stream are not kept.
    pub dropped: u64,
}

impl OutputPage {
    /// Where the next page begins.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = OutputCursor { seq: 7, attempt: 2, stdout: 1 << 40, stderr: 0 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for damaged in
            ["", "1", "1-2-3", "1-2-3-4-5", "-1-2-3-4", "1-2-3-x", "99999999999999999999-1-0-0"]
        {
            assert!(damaged.parse::<OutputCursor>().is_err(), "{damaged:?}");
        }
    }
}
