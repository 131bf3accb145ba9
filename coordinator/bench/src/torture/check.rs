//! What became of every job, held against what was acknowledged and what the workers say they ran.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
};

use lull_shared::{
    client::Client,
    ids::JobId,
    jobs::{AttemptEnding, Job, JobFilter, JobState},
};
use rusqlite::{Connection, OpenFlags};

use super::{Outcome, command, submission};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An acknowledged job is not there, or has not ended.
    Lost {
        /// Its number among the submissions.
        number: u32,
        /// What is wrong with it.
        why: String,
    },
    /// A job that nobody was told of: a second one for the same submission.
    Duplicated {
        /// Which.
        job: JobId,
    },
    /// Nothing ended for twice the lease, though jobs were left.
    Stuck {
        /// How many.
        jobs: u64,
    },
    /// More than one end was recorded, or one of an attempt that was not the last.
    RecordedTwice {
        /// Which.
        job: JobId,
        /// How its attempts ended.
        endings: Vec<String>,
    },
    /// Its output is not that of the attempt that ended it, once and whole.
    WrongOutput {
        /// Which.
        job: JobId,
        /// What it is instead.
        output: String,
    },
    /// One attempt ran on two workers, or on none.
    WrongRuns {
        /// Which.
        job: JobId,
        /// How many ran it.
        runs: usize,
    },
    /// What a worker delivered for an attempt long replaced was taken.
    Unfenced {
        /// Which.
        job: JobId,
    },
    /// It was refused, but not because the lease was lost.
    Late {
        /// Which.
        job: JobId,
        /// The kind of the refusal.
        kind: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { number, why } => write!(f, "submission {number} is lost: {why}"),
            Self::Duplicated { job } => write!(f, "job {job} is one too many"),
            Self::Stuck { jobs } => write!(f, "{jobs} jobs are stuck"),
            Self::RecordedTwice { job, endings } => {
                write!(f, "job {job} was recorded wrongly: {}", endings.join(", "))
            }
            Self::WrongOutput { job, output } => write!(f, "job {job} has the output {output:?}"),
            Self::WrongRuns { job, runs } => {
                write!(f, "the last attempt of job {job} ran on {runs} workers")
            }
            Self::Unfenced { job } => write!(f, "an old attempt of job {job} was heard"),
            Self::Late { job, kind } => write!(f, "an old attempt of job {job} got {kind}"),
        }
    }
}

/// Checks every job and adds what is wrong to the outcome.
pub(super) async fn check(
    client: &Client,
    seed: u64,
    acknowledged: &BTreeMap<u32, JobId>,
    histories: &[PathBuf],
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let known: HashSet<JobId> = acknowledged.values().copied().collect();
    for job in all_jobs(client).await? {
        if !known.contains(&job) {
            outcome.faults.push(Fault::Duplicated { job });
        }
    }
    let runs = runs(histories)?;
    for (number, id) in acknowledged {
        let job = match client.job_status(*id).await {
            Ok(job) => job,
            Err(error) => {
                outcome.faults.push(Fault::Lost { number: *number, why: error.to_string() });
                continue;
            }
        };
        outcome.attempts += job.attempt;
        outcome.faults.extend(look_at(&job, *number, &runs));
    }
    // Sent once more, a submission gives the job it gave before.
    for (number, id) in acknowledged.iter().step_by(10) {
        let again = client.create_job(&submission(*number, seed)).await?;
        if again.job_id != *id {
            outcome.faults.push(Fault::Duplicated { job: again.job_id });
        }
    }
    Ok(())
}

async fn all_jobs(client: &Client) -> anyhow::Result<Vec<JobId>> {
    let mut ids = Vec::new();
    let mut filter = JobFilter { limit: Some(500), ..JobFilter::default() };
    loop {
        let page = client.list_jobs(&filter).await?;
        ids.extend(page.jobs.iter().map(|job| job.job_id));
        match page.next {
            Some(next) => filter.cursor = Some(next),
            None => return Ok(ids),
        }
    }
}

/// What the workers themselves wrote down of the attempts they ran.
fn runs(histories: &[PathBuf]) -> anyhow::Result<HashMap<(JobId, u32), usize>> {
    let mut runs = HashMap::new();
    for path in histories {
        for run in runs_of(path)? {
            *runs.entry(run).or_default() += 1;
        }
    }
    Ok(runs)
}

fn runs_of(path: &Path) -> anyhow::Result<Vec<(JobId, u32)>> {
    let history = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = history.prepare("select job_id, attempt from attempts")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    rows.map(|row| {
        let (job, attempt) = row?;
        Ok((job.parse()?, attempt))
    })
    .collect()
}

fn look_at(job: &Job, number: u32, runs: &HashMap<(JobId, u32), usize>) -> Vec<Fault> {
    let id = job.job_id;
    if !job.status.is_terminal() {
        return vec![Fault::Lost { number, why: format!("it is {}", job.status.name()) }];
    }
    let mut faults = Vec::new();
    let exit_code = command(number).1;
    let ended_well = match exit_code {
        0 => (JobState::Completed, AttemptEnding::Succeeded),
        _ => (JobState::Failed, AttemptEnding::CommandFailed),
    };
    let recorded = |ending: Option<AttemptEnding>| {
        matches!(ending, Some(AttemptEnding::Succeeded | AttemptEnding::CommandFailed))
    };
    let before = job.attempts.iter().rev().skip(1).any(|attempt| recorded(attempt.ending));
    let last = job.attempts.last();
    let is_last = last.is_some_and(|last| {
        last.attempt == job.attempt
            && last.ending == Some(ended_well.1)
            && last.exit_code == Some(exit_code)
    });
    if before || !is_last || job.status != ended_well.0 || job.exit_code != Some(exit_code) {
        let endings = job.attempts.iter().map(|attempt| {
            let ending = attempt.ending.map_or("open", AttemptEnding::name);
            format!("{ending} ({})", attempt.error_message.as_deref().unwrap_or("-"))
        });
        faults.push(Fault::RecordedTwice { job: id, endings: endings.collect() });
    }
    let output = job.stdout.clone().unwrap_or_default();
    if output != format!("{id} {}\n", job.attempt) {
        faults.push(Fault::WrongOutput { job: id, output });
    }
    let runs = runs.get(&(id, job.attempt)).copied().unwrap_or_default();
    if runs != 1 {
        faults.push(Fault::WrongRuns { job: id, runs });
    }
    faults
}
