//! Everything the program prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

use lull_shared::{
    jobs::AttemptEnding,
    local::{LocalAttempt, LocalHistory},
    time::Timestamp,
};

/// What went wrong, with its causes, for the person who started the program.
pub(super) fn error(error: &anyhow::Error) {
    eprintln!("lull-worker: {error:#}");
}

pub(super) fn json(history: &LocalHistory) -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string_pretty(history)?);
    Ok(())
}

pub(super) fn table(history: &LocalHistory) -> Result<(), serde_json::Error> {
    if history.attempts.is_empty() {
        println!("Nothing ran on this PC yet.");
        return Ok(());
    }
    println!("{:<20}  {:>8}  {:<16}  {:<16}  JOB", "STARTED (UTC)", "TOOK", "ENDED", "FOR");
    for attempt in &history.attempts {
        println!(
            "{:<20}  {:>8}  {:<16}  {:<16}  {}",
            utc(attempt.started_at),
            took(attempt),
            ending(attempt),
            plain(&attempt.submitted_by, 16),
            plain(&attempt.name, 60)
        );
    }
    Ok(())
}

fn took(attempt: &LocalAttempt) -> String {
    let Some(ended_at) = attempt.ended_at else { return "running".to_owned() };
    let secs = ended_at.since(attempt.started_at).as_secs_f64();
    if secs < 60.0 { format!("{secs:.1} s") } else { format!("{:.0} min", secs / 60.0) }
}

fn ending(attempt: &LocalAttempt) -> String {
    match attempt.ending {
        None => "-".to_owned(),
        Some(AttemptEnding::Succeeded) => "succeeded".to_owned(),
        Some(AttemptEnding::CommandFailed) => attempt
            .exit_code
            .map_or_else(|| "failed".to_owned(), |code| format!("exit code {code}")),
        Some(AttemptEnding::TimedOut) => "timed out".to_owned(),
        Some(AttemptEnding::Refused) => "refused".to_owned(),
        Some(AttemptEnding::CouldNotRun) => "could not run".to_owned(),
        Some(AttemptEnding::GivenBack) => "given back".to_owned(),
        Some(AttemptEnding::WorkerLost) => "lease lost".to_owned(),
        Some(AttemptEnding::Cancelled) => "cancelled".to_owned(),
    }
}

/// Others wrote it: nothing in it may reach the terminal but letters.
fn plain(text: &str, chars_max: usize) -> String {
    let shown: String =
        text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if shown.chars().count() <= chars_max {
        return shown;
    }
    shown.chars().take(chars_max - 1).chain(['…']).collect()
}

/// Year, month, day and time of day by the calendar everybody uses.
fn utc(at: Timestamp) -> String {
    let secs = at.as_millis().div_euclid(1000);
    let (days, secs) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Counted from 1 March of the year 0, so that a leap day is the last of its year.
    let from_march = days + 719_468;
    let era = from_march.div_euclid(146_097);
    let day = from_march.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_the_calendar() {
        check(0, "1970-01-01 00:00:00");
        check(951_782_400_000, "2000-02-29 00:00:00");
        check(1_795_000_000_000, "2026-11-18 11:06:40");
        check(4_107_542_399_999, "2100-02-28 23:59:59");
    }

    #[track_caller]
    fn check(millis: i64, expected: &str) {
        assert_eq!(utc(Timestamp::from_millis(millis)), expected);
    }

    #[test]
    fn a_job_s_name_moves_nothing_on_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n", 60), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(plain("abcdef", 4), "abc…");
    }
}
