//! Server-sent events, read as the bytes arrive, wherever they are cut.

/// One event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// Its `event` field.
    pub(super) name: String,
    /// Its `id` field, when it has one.
    pub(super) id: Option<String>,
    /// Its `data` lines, joined by newlines.
    pub(super) data: String,
}

/// One event is larger than any that a coordinator sends.
#[derive(Debug, thiserror::Error)]
#[error("an event larger than {EVENT_BYTES_MAX} bytes")]
pub(super) struct EventTooLarge;

/// More than the largest event: a job with all its attempts, or a chunk of output in base64.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Turns bytes into events.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    line: Vec<u8>,
    /// A carriage return ended the last line; a newline right after it belongs to it.
    after_return: bool,
    started: bool,
    event: SseEvent,
    has_data: bool,
}

impl SseParser {
    /// Takes the next bytes and gives the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, EventTooLarge> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let ending = rest[end];
            let continues = end == 0 && self.after_return && ending == b'\n';
            self.after_return = ending == b'\r';
            if !continues {
                self.line.extend_from_slice(&rest[..end]);
                events.extend(self.end_line()?);
            }
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            self.after_return = false;
            self.line.extend_from_slice(rest);
        }
        if self.line.len() > EVENT_BYTES_MAX { Err(EventTooLarge) } else { Ok(events) }
    }

    /// Reads one whole line; an empty one ends the event.
    fn end_line(&mut self) -> Result<Option<SseEvent>, EventTooLarge> {
        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&bytes);
        let line = if self.started { &line } else { line.trim_start_matches('\u{feff}') };
        self.started = true;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                if self.event.data.len() > EVENT_BYTES_MAX {
                    return Err(EventTooLarge);
                }
            }
            // Comments keep the connection alive; other fields are for browsers.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\n\nevent: started\nid: 1.0\ndata: {\"a\":\"ü😀\"}\n\n\
        : still here\r\n\r\nevent:output\rid:2\rdata:one\rdata: two\r\rretry: 5\nid: 3\n\ndata\n\nevent: late";

    fn expected() -> Vec<SseEvent> {
        let event = |name: &str, id: Option<&str>, data: &str| SseEvent {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        vec![
            event("started", Some("1.0"), "{\"a\":\"ü😀\"}"),
            event("output", Some("2"), "one\ntwo"),
            event("", None, ""),
        ]
    }

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let bytes = STREAM.as_bytes();
        for cut in 0..=bytes.len() {
            let mut parser = SseParser::default();
            let mut events = parser.push(&bytes[..cut]).unwrap();
            events.extend(parser.push(&bytes[cut..]).unwrap());
            assert_eq!(events, expected(), "cut at {cut}");
        }
    }

    #[test]
    fn events_are_the_same_byte_by_byte() {
        let mut parser = SseParser::default();
        let events: Vec<_> =
            STREAM.bytes().flat_map(|byte| parser.push(&[byte]).unwrap()).collect();
        assert_eq!(events, expected());
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; 1024 * 1024], b"\n"].concat();
        let refused = (0..20).any(|_| parser.push(&line).is_err());
        assert!(refused, "20 MiB of data in one event were taken");
    }
}
