//! Which zips are accepted, how they are unpacked and made.
//!
//! An archive is read by rules that hold on every system, so that what one PC accepts every PC can unpack. The
//! directory is read by our own strict reader before anything is written; the `zip` crate unpacks, and has to agree
//! with that reader about every entry.

mod directory;
mod names;
mod pack;
mod unpack;

use std::{fmt, io};

pub use pack::{PackProgress, Packed, pack, pack_selected};
pub use unpack::{check, extract};

/// What an archive may hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, unpacked.
    pub total_bytes: u64,
    /// Files and folders together.
    pub entries: u64,
    /// Names on the way to a file, its own included.
    pub depth: usize,
    /// How many times its packed size a file may unpack to.
    pub ratio: u64,
    /// What unpacks to less than this may do so at any ratio.
    pub ratio_from_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 20 * 1024 * 1024 * 1024,
            entries: 100_000,
            depth: 64,
            ratio: 200,
            ratio_from_bytes: 10 * 1024 * 1024,
        }
    }
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of files.
    pub files: u64,
    /// Number of folders that have an entry of their own.
    pub folders: u64,
    /// Bytes of all files, unpacked.
    pub total_bytes: u64,
}

/// Why an archive is not accepted, unpacked or made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It breaks a rule; it does so everywhere. The text names the entry and the rule and is safe to show.
    #[error("{0}")]
    Refused(String),
    /// The disk or the file could not be read or written.
    #[error("could not {act}")]
    Io {
        /// What was tried: `read the archive`, `write "a/b"`.
        act: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ArchiveError {
    fn whole(rule: impl fmt::Display) -> Self {
        Self::Refused(rule.to_string())
    }

    fn entry(name: &str, rule: impl fmt::Display) -> Self {
        Self::Refused(format!("{}: {rule}", shown(name)))
    }

    fn io(act: impl Into<String>, source: io::Error) -> Self {
        Self::Io { act: act.into(), source }
    }
}

/// A name from an archive in a form that is safe on a terminal and in a log: quoted, escaped, not too long.
fn shown(name: &str) -> String {
    const SHOWN_MAX: usize = 120;

    let mut text = String::from("\"");
    for (at, char) in name.chars().enumerate() {
        if at == SHOWN_MAX {
            text.push('…');
            break;
        }
        if char.is_alphanumeric() || char == ' ' || char.is_ascii_punctuation() && char != '"' {
            text.push(char);
        } else {
            text.extend(char.escape_default());
        }
    }
    text.push('"');
    text
}
