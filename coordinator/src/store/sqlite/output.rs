//! Output and the other events of a job: appended in order, the middle of long streams dropped, read
//! by whoever follows.

use bytes::Bytes;
use lull_shared::{ids::JobId, jobs::AttemptEnding, output::Stream};
use rusqlite::{Connection, OptionalExtension as _, named_params, params};

use super::{
    columns::{Col, RowExt as _},
    jobs, show,
};
use crate::{
    model::{JobEvent, OutputCursor, OutputPage, OutputPiece},
    store::{HEAD_BYTES, SHOWN_BYTES, StoreError, TAIL_BYTES},
};

/// The most bytes of one output event, so that the tail moves in small steps.
const CHUNK_BYTES: usize = 256 * 1024;
/// About how many bytes a page of one stream holds.
const PAGE_BYTES: usize = 1024 * 1024;
/// The most events read at once.
const EVENTS_MAX: u32 = 1000;

/// Something other than output that happens to a job.
pub(super) enum Happening<'a> {
    Started { hostname: &'a str },
    Requeued { ending: AttemptEnding, error_message: Option<&'a str> },
    Ended,
}

pub(super) fn add_event(
    connection: &Connection,
    job: i64,
    attempt: u32,
    happening: &Happening<'_>,
) -> Result<(), StoreError> {
    let (kind, hostname, ending, message) = match happening {
        Happening::Started { hostname } => ("started", Some(*hostname), None, None),
        Happening::Requeued { ending, error_message } => {
            ("requeued", None, Some(ending.name()), *error_message)
        }
        Happening::Ended => ("ended", None, None, None),
    };
    let sql = "insert into events (job, attempt, kind, hostname, ending, error_message)
               values (?1, ?2, ?3, ?4, ?5, ?6)";
    connection
        .prepare_cached(sql)?
        .execute(params![job, attempt, kind, hostname, ending, message])?;
    Ok(())
}

/// Appends to a stream and gives the offset at which it goes on.
pub(super) fn append(
    connection: &Connection,
    job: i64,
    attempt: u32,
    piece: &OutputPiece,
) -> Result<u64, StoreError> {
    let key = (job, attempt, Col(piece.stream));
    let stored: Option<(u64, u64)> = connection
        .prepare_cached(
            "select next_offset, tail_bytes from streams where job = ?1 and attempt = ?2 and stream = ?3",
        )?
        .query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (mut next, mut tail_bytes) = stored.unwrap_or_default();
    if piece.offset > next {
        return Err(StoreError::OffsetMismatch { next });
    }
    let known = usize::try_from(next - piece.offset).unwrap_or(usize::MAX);
    let mut rest = piece.bytes.get(known..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(next);
    }
    while !rest.is_empty() {
        // A chunk belongs to the head or to the tail, never to both.
        let to_head_end = HEAD_BYTES.saturating_sub(next);
        let room = if to_head_end == 0 { u64::MAX } else { to_head_end };
        let size = rest.len().min(CHUNK_BYTES).min(usize::try_from(room).unwrap_or(usize::MAX));
        let (chunk, after) = rest.split_at(size);
        connection
            .prepare_cached(
                "insert into events (job, attempt, kind, stream, start, data)
                 values (?1, ?2, 'output', ?3, ?4, ?5)",
            )?
            .execute(params![job, attempt, Col(piece.stream), next, chunk])?;
        if to_head_end == 0 {
            tail_bytes += size as u64;
        }
        next += size as u64;
        rest = after;
    }
    while tail_bytes > TAIL_BYTES {
        tail_bytes -= drop_oldest_of_tail(connection, key)?;
    }
    connection
        .prepare_cached(
            "insert into streams (job, attempt, stream, next_offset, tail_bytes)
             values (?1, ?2, ?3, ?4, ?5)
             on conflict (job, attempt, stream)
             do update set next_offset = excluded.next_offset, tail_bytes = excluded.tail_bytes",
        )?
        .execute(params![job, attempt, Col(piece.stream), next, tail_bytes])?;
    Ok(next)
}

fn drop_oldest_of_tail(
    connection: &Connection,
    (job, attempt, stream): (i64, u32, Col<Stream>),
) -> Result<u64, StoreError> {
    let (seq, size): (i64, u64) = connection
        .prepare_cached(
            "select seq, length(data) from events
              where job = ?1 and attempt = ?2 and stream = ?3 and stream is not null and start >= ?4
              order by start limit 1",
        )?
        .query_row(params![job, attempt, stream, HEAD_BYTES], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    connection.prepare_cached("delete from events where seq = ?1")?.execute([seq])?;
    Ok(size)
}

/// What happened to a job after the cursor.
pub(super) fn events(
    connection: &Connection,
    id: JobId,
    after: OutputCursor,
    bytes_max: usize,
) -> Result<Vec<(OutputCursor, JobEvent)>, StoreError> {
    let job = jobs::seq_of(connection, id)?;
    let mut statement = connection.prepare_cached(
        "select seq, attempt, kind, stream, start, data, hostname, ending, error_message
           from events where job = :job and seq > :after order by seq limit :limit",
    )?;
    let mut rows = statement
        .query(named_params! { ":job": job, ":after": after.seq, ":limit": EVENTS_MAX })?;
    let mut cursor = after;
    let mut found = Vec::new();
    let mut bytes_read = 0;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get("seq")?;
        let attempt: u32 = row.get("attempt")?;
        if attempt != cursor.attempt {
            cursor = OutputCursor { seq: cursor.seq, attempt, ..OutputCursor::default() };
        }
        let kind: String = row.get("kind")?;
        let event = match kind.as_str() {
            "output" => {
                let stream: Stream = row.col("stream")?;
                let offset: u64 = row.get("start")?;
                let bytes = Bytes::from(row.get::<_, Vec<u8>>("data")?);
                let missing = offset.saturating_sub(cursor.next_offset(stream));
                if missing > 0 {
                    cursor.set_next_offset(stream, offset);
                    found.push((cursor, JobEvent::Dropped { attempt, stream, bytes: missing }));
                }
                cursor.set_next_offset(stream, offset + bytes.len() as u64);
                bytes_read += bytes.len();
                JobEvent::Output { attempt, stream, offset, bytes }
            }
            "started" => JobEvent::Started { attempt, hostname: row.get("hostname")? },
            "requeued" => JobEvent::Requeued {
                attempt,
                ending: row.word("ending", AttemptEnding::from_name)?,
                error_message: row.get("error_message")?,
            },
            _ => JobEvent::Ended { job: Box::new(show::detail(connection, id)?) },
        };
        cursor.seq = seq;
        found.push((cursor, event));
        if bytes_read >= bytes_max {
            break;
        }
    }
    Ok(found)
}

/// A page of one stream.
pub(super) fn page(
    connection: &Connection,
    id: JobId,
    attempt: Option<u32>,
    stream: Stream,
    from: u64,
) -> Result<OutputPage, StoreError> {
    let job = jobs::seq_of(connection, id)?;
    let last: u32 = connection
        .prepare_cached("select attempt from jobs where seq = ?1")?
        .query_row([job], |row| row.get(0))?;
    let attempt = attempt.unwrap_or(last);
    if attempt > last {
        return Err(StoreError::NotFound("attempt"));
    }
    let mut page = OutputPage { attempt, bytes: Bytes::new(), offset: from, dropped: 0 };
    page.dropped = dropped(connection, job, attempt, stream)?;
    let mut statement = connection.prepare_cached(
        "select start, data from events
          where job = ?1 and attempt = ?2 and stream = ?3 and stream is not null and start > ?4
          order by start",
    )?;
    // The chunk that holds `from` begins at most one chunk before it.
    let first = i64::try_from(from).unwrap_or(i64::MAX).saturating_sub(CHUNK_BYTES as i64);
    let mut rows = statement.query(params![job, attempt, Col(stream), first])?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        let start: u64 = row.get("start")?;
        let data = row.get_ref("data")?.as_blob().map_err(rusqlite::Error::from)?;
        let skip = usize::try_from(from.saturating_sub(start)).unwrap_or(usize::MAX);
        let Some(data) = data.get(skip..).filter(|data| !data.is_empty()) else { continue };
        if bytes.is_empty() {
            page.offset = start.max(from);
        } else if start != page.offset + bytes.len() as u64 {
            break;
        }
        bytes.extend_from_slice(data);
        if bytes.len() >= PAGE_BYTES {
            break;
        }
    }
    page.bytes = bytes.into();
    Ok(page)
}

fn dropped(
    connection: &Connection,
    job: i64,
    attempt: u32,
    stream: Stream,
) -> Result<u64, StoreError> {
    let dropped = connection
        .prepare_cached(
            "select max(next_offset - ?4, 0) - tail_bytes from streams
              where job = ?1 and attempt = ?2 and stream = ?3",
        )?
        .query_row(params![job, attempt, Col(stream), HEAD_BYTES], |row| row.get(0))
        .optional()?;
    Ok(dropped.unwrap_or(0))
}

/// The end of a stream as a job shows it, or `None` when there is nothing in it.
pub(super) fn shown(
    connection: &Connection,
    job: i64,
    attempt: u32,
    stream: Stream,
) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select data from events
          where job = ?1 and attempt = ?2 and stream = ?3 and stream is not null
          order by start desc",
    )?;
    let mut rows = statement.query(params![job, attempt, Col(stream)])?;
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut size = 0;
    while size < SHOWN_BYTES
        && let Some(row) = rows.next()?
    {
        let chunk: Vec<u8> = row.get(0)?;
        size += chunk.len();
        chunks.push(chunk);
    }
    if size == 0 {
        return Ok(None);
    }
    let bytes: Vec<u8> = chunks.into_iter().rev().flatten().collect();
    let end = &bytes[bytes.len().saturating_sub(SHOWN_BYTES)..];
    Ok(Some(String::from_utf8_lossy(end).into_owned()))
}
