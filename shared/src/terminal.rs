//! What of a command's output may reach a terminal: text, colours, newlines and erases within the line.
//!
//! A program's output can rename the window, fill the clipboard, make the terminal type answers into the shell
//! or draw a false prompt. What is not on the short list here is dropped.

use std::fmt::{self, Write as _};

use vte::{Params, Parser, Perform};

/// More parameters than any real colour change has.
const SGR_PARAMETERS_MAX: usize = 24;
/// The furthest column a cursor move names.
const COLUMN_MAX: u16 = 1000;

/// Keeps the harmless part of a stream of output. One filter for each stream: sequences and characters may
/// be split anywhere.
#[derive(Default)]
pub struct TerminalFilter {
    parser: Parser,
    kept: Kept,
    /// The beginning of a character whose other bytes have not come yet: three bytes at most.
    held: Vec<u8>,
}

impl TerminalFilter {
    /// A filter at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and gives what may be shown of them. Invalid UTF-8 becomes U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        // Decoded here, because the parser may lose a character next to one that was split.
        let mut joined = std::mem::take(&mut self.held);
        let bytes = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut rest = bytes.len();
        for chunk in bytes.utf8_chunks() {
            rest -= chunk.valid().len() + chunk.invalid().len();
            self.parser.advance(&mut self.kept, chunk.valid().as_bytes());
            if rest == 0 && is_beginning(chunk.invalid()) {
                self.held = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                self.parser.advance(&mut self.kept, "\u{fffd}".as_bytes());
            }
        }
        std::mem::take(&mut self.kept.text)
    }

    /// Ends the stream: gives what was held back, and what is needed so that whatever follows is not
    /// coloured by it.
    pub fn finish(&mut self) -> String {
        if !std::mem::take(&mut self.held).is_empty() {
            self.parser.advance(&mut self.kept, "\u{fffd}".as_bytes());
        }
        self.parser = Parser::new();
        if std::mem::take(&mut self.kept.coloured) {
            self.kept.text.push_str("\x1b[0m");
        }
        std::mem::take(&mut self.kept.text)
    }
}

/// Whether more bytes could make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

impl fmt::Debug for TerminalFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalFilter").finish_non_exhaustive()
    }
}

/// The text that passed. Everything the parser reports that has no method here is dropped.
#[derive(Default)]
struct Kept {
    text: String,
    /// A colour or style is on.
    coloured: bool,
}

impl Perform for Kept {
    fn print(&mut self, character: char) {
        // Directional overrides make a line read as something other than it is.
        let is_override = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if !character.is_control() && !is_override {
            self.text.push(character);
        }
    }

    fn execute(&mut self, byte: u8) {
        if matches!(byte, b'\n' | b'\r' | b'\t' | 0x08) {
            self.text.push(char::from(byte));
        }
    }

    fn csi_dispatch(
        &mut self,
        parameters: &Params,
        intermediates: &[u8],
        ignore: bool,
        action: char,
    ) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        let number = parameters.iter().next().and_then(|group| group.first()).copied().unwrap_or(0);
        match action {
            'm' => self.select_graphics(parameters),
            // Erase to the end, to the beginning, all: of this line.
            'K' if number <= 2 && parameters.len() <= 1 => self.put(number, 'K'),
            // Cursor right, left, to a column: within this line.
            'C' | 'D' | 'G' if parameters.len() <= 1 => {
                self.put(number.clamp(1, COLUMN_MAX), action);
            }
            _ => {}
        }
    }
}

impl Kept {
    fn put(&mut self, number: u16, action: char) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "\x1b[{number}{action}");
    }

    /// Writes colours and styles anew, without those that hide text.
    fn select_graphics(&mut self, parameters: &Params) {
        let groups: Vec<&[u16]> = parameters.iter().take(SGR_PARAMETERS_MAX).collect();
        let mut kept = Vec::new();
        let mut next = 0;
        while let Some(group) = groups.get(next) {
            let length = match group {
                // `38;5;n` and `38;2;r;g;b` with semicolons: the values belong to the colour.
                [38 | 48 | 58] => match groups.get(next + 1) {
                    Some([5]) => 3,
                    Some([2]) => 5,
                    _ => 0,
                },
                _ => 1,
            };
            let colour = groups.get(next..next + length).unwrap_or_default();
            if length == 0 || colour.is_empty() {
                // Half a colour: what follows cannot be told from its values.
                break;
            }
            if is_shown(colour) {
                kept.extend(colour.iter().map(|group| join(group, ":")));
                self.coloured = **group != [0];
            }
            next += length;
        }
        if !kept.is_empty() {
            let _ = write!(self.text, "\x1b[{}m", kept.join(";"));
        }
    }
}

/// Whether a style may be shown: all but blinking and hiding.
fn is_shown(style: &[&[u16]]) -> bool {
    let values_fit =
        style.iter().all(|group| group.len() <= 6 && group.iter().all(|value| *value <= 255));
    let known = matches!(
        style.first().and_then(|group| group.first()),
        Some(0..=4 | 7 | 9 | 21..=24 | 27..=29 | 30..=49 | 53 | 55 | 58 | 59 | 90..=97 | 100..=107)
    );
    values_fit && known
}

fn join(values: &[u16], separator: &str) -> String {
    values.iter().map(u16::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_colours_pass() {
        check("plain text, ümläut, 日本語, 😀\r\n\tend", "plain text, ümläut, 日本語, 😀\r\n\tend");
        check("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m");
        check("\x1b[1;4;38;5;208mx\x1b[m", "\x1b[1;4;38;5;208mx\x1b[0m");
        check("\x1b[38;2;1;2;3;48;5;7mx\x1b[0m", "\x1b[38;2;1;2;3;48;5;7mx\x1b[0m");
        check("\x1b[38:2:1:2:3mx\x1b[0m", "\x1b[38:2:1:2:3mx\x1b[0m");
        check("10%\r20%\x1b[K\r\x1b[2K30%", "10%\r20%\x1b[0K\r\x1b[2K30%");
        check("ab\x08c\x1b[3D\x1b[1Gd\x1b[2C", "ab\x08c\x1b[3D\x1b[1Gd\x1b[2C");
    }

    #[test]
    fn attacks_on_the_terminal_are_dropped() {
        // Window title, icon name, working folder, colours of the palette.
        check("a\x1b]0;pwned\x07b", "ab");
        check("a\x1b]2;pwned\x1b\\b", "ab");
        check("a\x1b]7;file:///etc\x07b", "ab");
        check("a\x1b]4;1;?\x07b\x1b]10;?\x07c", "abc");
        // Clipboard, and links whose target is not their text.
        check("a\x1b]52;c;cm0gLXJmIC8=\x07b", "ab");
        check("\x1b]8;;http://evil.example\x07click\x1b]8;;\x07", "click");
        // Questions whose answer the terminal would type: device attributes, status, cursor, DECRQSS, XTGETTCAP.
        check("a\x1b[c\x1b[>c\x1b[=c\x1b[5n\x1b[6n\x1b[?6nb", "ab");
        check("a\x1bP$q\"p\x1b\\b\x1bP+q544e\x1b\\c\x1bZd\x05e", "abcde");
        check("a\x1b[21tb\x1b[18tc\x1b[?2026$pd\x1b[>qe", "abcde");
        // Bracketed paste, mouse, alternate screen, keyboard modes, insert mode.
        check("a\x1b[200~rm -rf\x1b[201~b\x1b[?2004hc", "arm -rfbc");
        check("a\x1b[?1000h\x1b[?1049h\x1b[?25l\x1b[4h\x1b[>4;2mb", "ab");
        // Anything that writes elsewhere than on this line.
        check("a\x1b[2J\x1b[H\x1b[3J\x1b[1;1H\x1b[5A\x1b[5B\x1b[Jb", "ab");
        check("a\x1b[10S\x1b[10T\x1b[1;5r\x1b[5L\x1b[5Mb\x1b7c\x1b8d\x1bMe\x1bcf", "abcdef");
        // Repeats, resets, character sets, sixel, application strings.
        check("a\x1b[99999999b\x1b[!pb\x1b(0c\x1b#8d\x1bPq#0;2;0;0;0~\x1b\\e", "abcde");
        check("a\x1b_evil\x1b\\b\x1b^evil\x1b\\c\x1bXevil\x1b\\d", "abcd");
        // Hidden and blinking text shows as text.
        check("\x1b[8mhidden\x1b[5mblink\x1b[1;8mbold", "hiddenblink\x1b[1mbold");
        // Bells, NULs, deletes, shifts, form feeds; C1 controls as code points and as bytes.
        check("a\x07\x00\x7f\x0e\x0f\x0b\x0cb", "ab");
        check("a\u{9b}31mb\u{9d}0;x\u{9c}c\u{90}d", "a31mb0;xcd");
        check_bytes(b"a\x9b31mb\x9d52;c;eA==\x9cc", "a\u{fffd}31mb\u{fffd}52;c;eA==\u{fffd}c");
        // Text that reads in another order than it is written.
        check("ex\u{202e}gpj.\u{2066}exe", "exgpj.exe");
    }

    #[test]
    fn nothing_is_taken_for_a_colour_that_is_not_one() {
        check("\x1b[38mx", "x");
        check("\x1b[38;9;31mx", "x");
        check("\x1b[38;5mx", "x");
        check("\x1b[1;38;2;1;2mx", "\x1b[1mx");
        check("\x1b[38;5;99999mx", "x");
        check("\x1b[12345mx", "x");
        check("\x1b[?31mx", "x");
        check("\x1b[31 mx", "x");
        check("\x1b[99999Cx", "\x1b[1000Cx");
        check("\x1b[3Kx", "x");
        let many = format!("\x1b[{}mx", "1;".repeat(500));
        check(&many, "x");
    }

    #[test]
    fn invalid_text_is_replaced() {
        check_bytes(b"a\xffb\xc3(c\xf0\x9f\x98d", "a\u{fffd}b\u{fffd}(c\u{fffd}d");
        // A lone surrogate and an overlong slash.
        check_bytes(b"a\xed\xa0\x80b\xc0\xafc", "a\u{fffd}\u{fffd}\u{fffd}b\u{fffd}\u{fffd}c");
        let mut filter = TerminalFilter::new();
        assert_eq!(filter.push(b"a\xf0\x9f"), "a");
        assert_eq!(filter.finish(), "\u{fffd}");
    }

    #[test]
    fn a_sequence_without_an_end_takes_no_memory_and_no_time() {
        let mut filter = TerminalFilter::new();
        assert_eq!(filter.push(b"a\x1b]52;c;"), "a");
        for _ in 0..64 {
            assert_eq!(filter.push(&vec![b'A'; 1024 * 1024]), "");
        }
        assert!(size_of_val(&filter) < 8 * 1024, "the filter holds what it drops");
        let invalid = filter.push(&[b"\x07".as_slice(), &vec![0xff; 1024 * 1024]].concat());
        assert_eq!(invalid.chars().count(), 1024 * 1024);
    }

    #[test]
    fn the_end_of_a_stream_ends_its_colours() {
        let mut filter = TerminalFilter::new();
        filter.push(b"\x1b[31mred");
        assert_eq!(filter.finish(), "\x1b[0m");
        filter.push(b"\x1b[31mred\x1b[0m plain");
        assert_eq!(filter.finish(), "");
    }

    #[track_caller]
    fn check(input: &str, expected: &str) {
        check_bytes(input.as_bytes(), expected);
    }

    /// The whole at once, cut in two at every byte, and byte by byte.
    #[track_caller]
    fn check_bytes(input: &[u8], expected: &str) {
        assert_eq!(TerminalFilter::new().push(input), expected, "{input:?} at once");
        for cut in 0..=input.len() {
            let mut filter = TerminalFilter::new();
            let shown = filter.push(&input[..cut]) + &filter.push(&input[cut..]);
            assert_eq!(shown, expected, "{input:?} cut at {cut}");
        }
        let mut filter = TerminalFilter::new();
        let shown: String = input.iter().map(|byte| filter.push(&[*byte])).collect();
        assert_eq!(shown, expected, "{input:?} byte by byte");
    }
}
