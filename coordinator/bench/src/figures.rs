//! Percentiles and the lines that the benchmarks print.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

/// Durations of one thing, to take percentiles of.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The duration that this share (0 to 100) of the samples stayed at or under.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get(last * percent / 100).copied().unwrap_or_default()
    }

    /// Prints p50 and p99 under a name.
    pub(crate) fn print(&self, name: &str) {
        line(
            name,
            &format!(
                "p50 {:8.2} ms   p99 {:8.2} ms",
                millis(self.percentile(50)),
                millis(self.percentile(99))
            ),
        );
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Events a second.
pub(crate) fn rate(events: u32, took: Duration) -> f64 {
    f64::from(events) / took.as_secs_f64()
}

/// Prints one figure.
#[expect(clippy::print_stdout, reason = "the figures are the program's output")]
pub(crate) fn line(name: &str, value: &str) {
    println!("{name:<58} {value}");
}

#[expect(clippy::print_stderr, reason = "the program's one way to say why it failed")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// What one small durable write costs on this disk: most of what an accepted request waits for.
pub(crate) fn print_disk_sync(folder: &Path) -> anyhow::Result<()> {
    let mut file = File::create(folder.join("sync-probe"))?;
    let mut samples = Samples::default();
    for _ in 0..200 {
        file.write_all(&[7; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        samples.push(begun.elapsed());
    }
    samples.print("the disk's own sync of 4 KiB");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_of_the_sorted_samples() {
        let mut samples = Samples::default();
        for millis in (1..=101).rev() {
            samples.push(Duration::from_millis(millis));
        }
        assert_eq!(samples.percentile(50), Duration::from_millis(51));
        assert_eq!(samples.percentile(99), Duration::from_millis(100));
        assert_eq!(Samples::default().percentile(50), Duration::ZERO);
    }
}
