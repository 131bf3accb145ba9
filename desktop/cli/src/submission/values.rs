//! Values as people write them on the command line: times, sizes, items.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use lull_shared::jobs::{ITEMS_BYTES_MAX, SECS_MAX};

/// Reads `KEY=VALUE`.
pub(super) fn read_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// Reads a span of time in seconds: `90`, `90s`, `10m`, `1h30m`, `2d`.
pub(super) fn read_secs(text: &str) -> Result<u32, String> {
    let wrong = || "write it as 90s, 10m, 1h30m or 2d".to_owned();
    let mut secs: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.chars().next();
        let each = match unit {
            Some('s') | None => 1,
            Some('m') => 60,
            Some('h') => 60 * 60,
            Some('d') => 24 * 60 * 60,
            Some(_) => return Err(wrong()),
        };
        rest = &rest[unit.map_or(0, char::len_utf8)..];
        secs = secs.saturating_add(number.saturating_mul(each));
    }
    match u32::try_from(secs) {
        Ok(secs) if (1..=SECS_MAX).contains(&secs) => Ok(secs),
        Ok(_) | Err(_) => Err("from 1s to 30d".to_owned()),
    }
}

/// Reads a size in bytes: `16GiB`, `16G`, `512MiB`, `8GB`, `1073741824`.
pub(super) fn read_bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 =
        text[..digits].parse().map_err(|_| "write it as 16GiB or 512MiB".to_owned())?;
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err("write it as 16GiB or 512MiB".to_owned()),
    };
    number.checked_mul(unit).ok_or_else(|| "that is more than there is".to_owned())
}

/// The items of an array: the lines of a file, or of standard input for `-`. Empty lines are left out.
pub(super) fn read_items(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        let limit = 2 * ITEMS_BYTES_MAX as u64;
        io::stdin().lock().take(limit).read_to_string(&mut text).context("the items")?;
        text
    } else {
        fs::read_to_string(path)
            .with_context(|| format!("could not read the items from {}", path.display()))?
    };
    let items: Vec<String> =
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if items.is_empty() {
        bail!("{} has no items: write one on each line", path.display());
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_needs_a_name() {
        assert_eq!(read_pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(read_pair("=b").is_err());
        assert!(read_pair("A").is_err());
    }

    #[test]
    fn a_time_is_written_as_people_write_it() {
        let good =
            [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("1m5", 65)];
        for (text, secs) in good {
            assert_eq!(read_secs(text), Ok(secs), "{text}");
        }
        for text in ["", "0", "m", "10 m", "-1", "1w", "31d", "1.5h", "99999999999999999999d"] {
            assert!(read_secs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_written_as_people_write_it() {
        let good =
            [("16GiB", 16 << 30), ("16g", 16 << 30), ("1 KiB", 1024), ("2GB", 2_000_000_000)];
        for (text, bytes) in good {
            assert_eq!(read_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1.5G", "-1", "1XB", "99999999TiB"] {
            assert!(read_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_line_of_a_file_is_an_item() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items");
        fs::write(&path, "one\r\n\ntwo words\nthree").unwrap();
        assert_eq!(read_items(&path).unwrap(), ["one", "two words", "three"]);
        fs::write(&path, "\n").unwrap();
        assert!(read_items(&path).unwrap_err().to_string().contains("no items"));
    }
}
