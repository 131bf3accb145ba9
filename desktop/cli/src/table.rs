//! Tables and the words in them: short ids, times from now, sizes.

use std::time::Duration;

use lull_shared::{ids::JobId, jobs::JobState, time::Timestamp};

use crate::output::{Output, Tone, clean};

/// The longest a cell gets before it is cut.
const CELL_MAX: usize = 44;

/// One cell: its text and its colour.
pub(crate) type Cell = (String, Tone);

/// A plain cell.
pub(crate) fn cell(text: impl Into<String>) -> Cell {
    (text.into(), Tone::Plain)
}

/// Prints rows under headings, each column as wide as it needs to be.
pub(crate) fn print(output: &Output, headings: &[&str], rows: &[Vec<Cell>]) -> anyhow::Result<()> {
    let heading = headings.iter().map(|text| ((*text).to_owned(), Tone::Quiet)).collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(heading)
        .chain(rows.iter().map(|row| row.iter().map(|(text, tone)| (fit(text), *tone)).collect()))
        .collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| rows.iter().map(|row| width(&row[column].0)).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::new();
        for (column, (text, tone)) in row.iter().enumerate() {
            line.push_str(&output.paint(*tone, text));
            if column + 1 < row.len() {
                line.push_str(&" ".repeat(widths[column] - width(text) + 2));
            }
        }
        output.line(line.trim_end())?;
    }
    Ok(())
}

fn fit(text: &str) -> String {
    let text = clean(text);
    if width(&text) <= CELL_MAX {
        return text;
    }
    text.chars().take(CELL_MAX - 1).chain(['…']).collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// The end of an id, which is its random part: enough to tell jobs apart and to type.
pub(crate) fn short(id: JobId) -> String {
    let text = id.to_string();
    text[text.len() - 8..].to_owned()
}

/// A state in its colour.
pub(crate) fn state(state: JobState) -> Cell {
    let tone = match state {
        JobState::Pending | JobState::Cancelled => Tone::Quiet,
        JobState::Running => Tone::Busy,
        JobState::Completed => Tone::Good,
        JobState::Failed => Tone::Bad,
    };
    (state.name().to_owned(), tone)
}

/// How long ago something was.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    let since = now.since(then);
    if since < Duration::from_secs(2) { "now".to_owned() } else { format!("{} ago", span(since)) }
}

/// A span of time in its largest unit, or two where one says too little.
pub(crate) fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{secs} s"),
        60..3600 => format!("{} min {:02} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {:02} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d", secs / 86_400),
    }
}

/// A size in bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut scaled, mut unit) = (bytes, "B");
    let mut tenths = 0;
    for next in units {
        if scaled < 1024 {
            break;
        }
        tenths = scaled % 1024 * 10 / 1024;
        scaled /= 1024;
        unit = next;
    }
    if tenths == 0 { format!("{scaled} {unit}") } else { format!("{scaled}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_at_a_glance() {
        assert_eq!(span(Duration::from_millis(40)), "40 ms");
        assert_eq!(span(Duration::from_secs(59)), "59 s");
        assert_eq!(span(Duration::from_secs(61)), "1 min 01 s");
        assert_eq!(span(Duration::from_secs(7300)), "2 h 01 min");
        assert_eq!(span(Duration::from_secs(200_000)), "2 d");
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(2 * 1024 * 1024 * 1024), "2 GiB");
        let now = Timestamp::from_millis(10_000);
        assert_eq!(ago(now, now), "now");
        assert_eq!(ago(now, Timestamp::from_millis(5_000)), "5 s ago");
        assert_eq!(ago(now, Timestamp::from_millis(50_000)), "now", "clocks differ");
    }

    #[test]
    fn long_and_hostile_names_fit_their_cell() {
        assert_eq!(width(&fit(&"x".repeat(500))), CELL_MAX);
        assert_eq!(fit("a\nb\x1b[2Jc"), "a bc");
    }
}
