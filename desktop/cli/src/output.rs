//! The one place that writes to standard output and standard error.

use std::io::{self, IsTerminal as _, Write as _};

use lull_shared::{
    client::ClientError, output::Stream, problem::ProblemKind, terminal::TerminalFilter,
};
use serde::Serialize;

/// A colour by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Quiet,
    Good,
    Busy,
    Bad,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Quiet => "2",
            Self::Good => "32",
            Self::Busy => "33",
            Self::Bad => "31",
        }
    }
}

/// How this run writes.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// JSON and nothing else on standard output.
    pub(crate) json: bool,
    no_colours: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool, no_colours: bool) -> Self {
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self { json, no_colours, stdout_is_terminal: stdout, stderr_is_terminal: stderr }
    }

    /// Whether a person watches standard error.
    pub(crate) const fn is_watched(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Text in a colour, where standard output is a terminal.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        paint(tone, text, self.stdout_is_terminal && !self.no_colours)
    }

    /// One JSON value on a line of its own.
    pub(crate) fn value(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.bytes(Stream::Stdout, &line)
    }

    /// A line of text for people, on standard output.
    pub(crate) fn line(&self, text: &str) -> anyhow::Result<()> {
        self.bytes(Stream::Stdout, format!("{text}\n").as_bytes())
    }

    /// Bytes as they are; what writes is gone at once.
    pub(crate) fn bytes(&self, stream: Stream, bytes: &[u8]) -> anyhow::Result<()> {
        match stream {
            Stream::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()?;
            }
            Stream::Stderr => io::stderr().lock().write_all(bytes)?,
        }
        Ok(())
    }

    /// What lets a command's output through to this stream: a filter where it is a terminal.
    pub(crate) fn filter(&self, stream: Stream, raw: bool) -> Option<TerminalFilter> {
        let terminal = match stream {
            Stream::Stdout => self.stdout_is_terminal,
            Stream::Stderr => self.stderr_is_terminal,
        };
        (terminal && !raw).then(TerminalFilter::new)
    }

    /// A remark beside the result, on standard error.
    pub(crate) fn note(&self, text: &str) {
        let colours = self.stderr_is_terminal && !self.no_colours;
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(io::stderr().lock(), "{}", paint(Tone::Quiet, text, colours));
    }

    /// A question that a person answers on the same line.
    pub(crate) fn prompt(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{text}");
        let _ = stderr.flush();
    }

    /// Why the command failed, and what to do next.
    pub(crate) fn failure(&self, error: &anyhow::Error) {
        let colours = self.stderr_is_terminal && !self.no_colours;
        let mut stderr = io::stderr().lock();
        let head = paint(Tone::Bad, "error:", colours);
        let _ = writeln!(stderr, "{head} {}", clean(&message(error)));
        if let Some(hint) = hint(error) {
            let _ = writeln!(stderr, "{} {hint}", paint(Tone::Strong, "next:", colours));
        }
    }
}

fn paint(tone: Tone, text: &str, colours: bool) -> String {
    if colours && tone != Tone::Plain {
        format!("\x1b[{}m{text}\x1b[0m", tone.code())
    } else {
        text.to_owned()
    }
}

/// Text of others (names, messages) on one line, without anything a terminal would act on.
pub(crate) fn clean(text: &str) -> String {
    let mut filter = TerminalFilter::new();
    let shown = filter.push(text.as_bytes()) + &filter.finish();
    let mut cleaned = String::new();
    let mut characters = shown.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            // What the filter lets through are colours and moves, which end in a letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else if character.is_control() {
            cleaned.push(' ');
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// The message with its causes, each once.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// What the person can do about it.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let error = error.downcast_ref::<ClientError>()?;
    match error {
        ClientError::Unreachable { .. } => Some(
            "is the coordinator running, and is this its address? Sign in elsewhere with `lull login --url URL`",
        ),
        ClientError::Untrusted { .. } => Some(
            "give the right CA with `lull login --ca FILE` or LULL_CA: it is tls/ca.pem in the coordinator's data folder",
        ),
        ClientError::Protocol { .. } => Some("check that the address is a Lull coordinator's"),
        ClientError::Problem(problem) if problem.kind == ProblemKind::Unauthenticated => Some(
            "sign in with `lull login`; an admin makes a token with `lull-coordinator token --role submitter`",
        ),
        ClientError::Problem(problem) if problem.kind == ProblemKind::Forbidden => Some(
            "`lull whoami` shows your role; submitting and cancelling needs a token with the role submitter",
        ),
        ClientError::Problem(problem) if problem.kind == ProblemKind::NotFound => {
            Some("`lull jobs` lists the jobs there are")
        }
        ClientError::Problem(_)
        | ClientError::Address { .. }
        | ClientError::Certificate(_)
        | ClientError::Request(_)
        | ClientError::File { .. } => None,
    }
}

/// The exit code when whoever read our output has gone, as `head` does: what a shell says of other programs then.
pub(crate) const CLOSED_PIPE: u8 = 141;

/// Whether whoever read our output has gone. Nothing is said about it.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use lull_shared::problem::Problem;

    use super::*;

    #[test]
    fn names_of_others_stay_on_their_line_and_do_nothing() {
        assert_eq!(clean("a\x1b]0;title\x07b\r\nc\x1b[2Jd\x1b[31mred"), "ab  cdred");
        assert_eq!(clean("日本 ümläut"), "日本 ümläut");
    }

    #[test]
    fn every_failure_a_person_can_mend_says_how() {
        let kinds = [ProblemKind::Unauthenticated, ProblemKind::Forbidden, ProblemKind::NotFound];
        for kind in kinds {
            let error = ClientError::Problem(Problem::new(kind)).into();
            assert!(hint(&error).is_some_and(|hint| hint.contains("`lull")), "{kind:?}");
        }
        let wrong_ca = ClientError::Untrusted { address: String::new(), reason: String::new() };
        assert!(hint(&wrong_ca.into()).is_some_and(|hint| hint.contains("--ca")));
    }

    #[test]
    fn a_message_tells_each_cause_once() {
        let error = anyhow::anyhow!("the disk is full").context("could not write x");
        assert_eq!(message(&error), "could not write x: the disk is full");
        let repeated = anyhow::anyhow!("the disk is full").context("failed: the disk is full");
        assert_eq!(message(&repeated), "failed: the disk is full");
    }
}
