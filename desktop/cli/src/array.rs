//! Follows an array to its end: how many of its jobs have ended, and how.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use indicatif::ProgressBar;
use lull_shared::{
    client::Client,
    events::PoolEvent,
    ids::JobId,
    jobs::{ArrayCounts, Job, JobFilter, JobState},
};
use serde::Serialize;
use tokio::time::{self, Instant};

use crate::{
    follow::{Followed, cancel},
    output::{Output, clean},
    progress,
    table::short,
    waiting::Waiting,
};

/// However fast its jobs end, the array is looked at this often at most.
const APART: Duration = Duration::from_millis(200);
/// Changes that are taken together.
const TOGETHER: usize = 1024;
/// Failed jobs that are named at the end.
const NAMED: u32 = 5;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Told<'a> {
    Array { array: ArrayCounts },
    Ended { job: &'a Job },
}

/// Follows an array to its end. The first Ctrl-C cancels it, the second one leaves.
pub(crate) async fn follow(
    client: &Client,
    output: &Output,
    array: JobId,
) -> anyhow::Result<Followed> {
    let told = output.clone();
    let events = client.follow_pool_telling(move |error| {
        if told.is_watched() {
            told.note(&format!("{error}; trying again"));
        }
    });
    let mut events = events.ready_chunks(TOGETHER);
    let mut shown = Shown { output, bar: None, last: None };
    let mut waiting = Waiting::new(client, output, array);
    let (mut idle, mut cancelling) = (true, false);
    // Nothing is known before the first look, which the beginning of the feed asks for.
    let (mut look, mut look_at) = (false, Instant::now());
    loop {
        tokio::select! {
            changes = events.next() => {
                for change in changes.context("the feed of events ended")? {
                    look |= concerns(&change?, array);
                }
            }
            () = time::sleep_until(look_at), if look => {
                (look, look_at) = (false, Instant::now() + APART);
                let job = client.job_status(array).await?;
                let counts = job.array.unwrap_or_default();
                idle = counts.pending == counts.count;
                if !idle {
                    waiting.end();
                }
                shown.show(counts)?;
                if job.status.is_terminal() {
                    shown.end(&job)?;
                    return Ok(Followed::Ended(Box::new(job)));
                }
            }
            told = waiting.tell(), if idle && waiting.is_wanted() => match told? {},
            pressed = tokio::signal::ctrl_c() => {
                pressed.context("could not wait for Ctrl-C")?;
                waiting.hide();
                if cancelling {
                    return Ok(Followed::Left);
                }
                cancelling = true;
                output.note(&format!(
                    "cancelling array {}; press Ctrl-C again to leave without waiting", short(array)
                ));
                cancel(client, output, array);
            }
        }
    }
}

fn concerns(change: &PoolEvent, array: JobId) -> bool {
    match change {
        PoolEvent::Reset => true,
        PoolEvent::Job { job_id, array_id, .. } => *job_id == array || *array_id == Some(array),
        PoolEvent::Worker { .. } => false,
    }
}

/// What has been shown so far.
struct Shown<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    last: Option<ArrayCounts>,
}

impl Shown<'_> {
    fn show(&mut self, counts: ArrayCounts) -> anyhow::Result<()> {
        if self.last.replace(counts) == Some(counts) {
            return Ok(());
        }
        if self.output.json {
            return self.output.value(&Told::Array { array: counts });
        }
        if counts.pending < counts.count {
            let bar = self.bar.get_or_insert_with(|| progress::jobs(counts.count));
            bar.set_position(ended(counts).into());
            bar.set_message(words(ArrayCounts { pending: 0, completed: 0, ..counts }));
        }
        Ok(())
    }

    fn end(&mut self, job: &Job) -> anyhow::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.output.json { self.output.value(&Told::Ended { job }) } else { Ok(()) }
    }
}

/// How many jobs have ended.
pub(crate) fn ended(counts: ArrayCounts) -> u32 {
    counts.completed + counts.failed + counts.cancelled
}

/// How an array stands: `3 running, 996 completed, 1 failed`. Leaves out what there is none of.
pub(crate) fn words(counts: ArrayCounts) -> String {
    let parts: Vec<String> = [
        (counts.pending, "waiting"),
        (counts.running, "running"),
        (counts.completed, "completed"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
    ]
    .into_iter()
    .filter(|(jobs, _)| *jobs > 0)
    .map(|(jobs, state)| format!("{jobs} {state}"))
    .collect();
    parts.join(", ")
}

/// Says how an array ended, and which jobs failed first.
pub(crate) async fn tell_end(client: &Client, output: &Output, job: &Job) -> anyhow::Result<()> {
    let counts = job.array.unwrap_or_default();
    if output.is_watched() || job.status != JobState::Completed {
        output.note(&format!("{} jobs: {}", counts.count, words(counts)));
    }
    if counts.failed == 0 {
        return Ok(());
    }
    let filter = JobFilter {
        array_id: Some(job.job_id),
        status: Some(JobState::Failed),
        limit: Some(NAMED),
        ..JobFilter::default()
    };
    for failed in client.list_jobs(&filter).await?.jobs {
        let why = match (failed.exit_code, &failed.error_message) {
            (_, Some(why)) => clean(why),
            (Some(code), None) => format!("exit code {code}"),
            (None, None) => "it could not be run".to_owned(),
        };
        output.note(&format!("  {}: {why}; `lull output {}`", name(&failed), name(&failed)));
    }
    Ok(())
}

/// What a job of an array is called: the array's last digits and its number.
pub(crate) fn name(job: &Job) -> String {
    match (job.array_id, job.index) {
        (Some(array), Some(index)) => format!("{}/{index}", short(array)),
        _ => short(job.job_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_without_what_there_is_none_of() {
        let counts = ArrayCounts {
            count: 10,
            pending: 4,
            running: 2,
            completed: 3,
            failed: 1,
            cancelled: 0,
        };
        assert_eq!(words(counts), "4 waiting, 2 running, 3 completed, 1 failed");
        assert_eq!(ended(counts), 4);
        assert_eq!(words(ArrayCounts::default()), "");
    }

    #[test]
    fn only_changes_of_the_array_ask_for_a_look() {
        let (array, other) = (JobId::generate(), JobId::generate());
        let job = |job_id, array_id| PoolEvent::Job {
            job_id,
            status: JobState::Running,
            attempt: 1,
            array_id,
        };
        assert!(concerns(&PoolEvent::Reset, array));
        assert!(concerns(&job(array, None), array));
        assert!(concerns(&job(other, Some(array)), array));
        assert!(!concerns(&job(other, None), array));
        assert!(!concerns(&job(other, Some(other)), array));
    }
}
