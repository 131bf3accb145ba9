//! The life of a job: one table of what may follow what. Pure.
//!
//! The store asks it before every change of a state, and a trigger of the database holds the same table once more.
//!
//! ```text
//!             hold, release
//!                ┌────┐
//!                ▼    │
//!  submit ────► pending ◄──────── requeue ────────┐
//!                │    │                           │
//!                │    └── claim, take back ──► running
//!                │                              │  │  └── complete ──► completed
//!                ├──────────── fail ────────────┼──┴───── fail ──────► failed
//!                └─────────── cancel ───────────┴──────── cancel ────► cancelled
//! ```

use lull_shared::jobs::JobState;

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A worker begins its next attempt.
    Claim,
    /// The attempt that was given up goes on: its worker was only silent.
    TakeBack,
    /// It goes back into the line.
    Requeue,
    /// Its command succeeded.
    Complete,
    /// It failed for good.
    Fail,
    /// It ends because a person says so.
    Cancel,
    /// A person stops it from being claimed.
    Hold,
    /// A person lets it be claimed again.
    Release,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 8] = [
        Self::Claim,
        Self::TakeBack,
        Self::Requeue,
        Self::Complete,
        Self::Fail,
        Self::Cancel,
        Self::Hold,
        Self::Release,
    ];
}

/// The state a job is in after a step, or nothing when the step is not possible.
#[must_use]
pub const fn after(state: JobState, step: Step) -> Option<JobState> {
    match (state, step) {
        (JobState::Pending, Step::Claim | Step::TakeBack) => Some(JobState::Running),
        (JobState::Pending, Step::Hold | Step::Release) | (JobState::Running, Step::Requeue) => {
            Some(JobState::Pending)
        }
        (JobState::Running, Step::Complete) => Some(JobState::Completed),
        (JobState::Pending | JobState::Running, Step::Fail) => Some(JobState::Failed),
        (JobState::Pending | JobState::Running, Step::Cancel) => Some(JobState::Cancelled),
        (JobState::Pending, Step::Requeue | Step::Complete)
        | (JobState::Running, Step::Claim | Step::TakeBack | Step::Hold | Step::Release)
        | (JobState::Completed | JobState::Failed | JobState::Cancelled, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_last_state_and_something_every_other() {
        for state in JobState::ALL {
            let goes_on = Step::ALL.iter().any(|step| after(state, *step).is_some());
            assert_eq!(goes_on, !state.is_terminal(), "{state:?}");
        }
    }

    #[test]
    fn the_documented_diagram_is_the_table() {
        let document = include_str!("../../docs/jobs.md");
        let diagram = document.split("```mermaid").nth(1).unwrap().split("```").next().unwrap();
        let mut drawn = Vec::new();
        for line in diagram.lines().filter(|line| line.contains("-->")) {
            let (edge, steps) = line.split_once(':').unwrap_or((line, ""));
            let (from, to) = edge.split_once("-->").unwrap();
            match (JobState::from_name(from.trim()), JobState::from_name(to.trim())) {
                (Some(from), Some(to)) => {
                    drawn.extend(steps.split(',').map(|step| (from, step.trim().to_owned(), to)));
                }
                (None, Some(first)) => assert_eq!(first, JobState::Pending, "{line}"),
                (Some(last), None) => assert!(last.is_terminal(), "{line}"),
                (None, None) => panic!("{line}"),
            }
        }
        let mut table: Vec<_> = JobState::ALL
            .into_iter()
            .flat_map(|state| Step::ALL.map(|step| (state, step)))
            .filter_map(|(state, step)| Some((state, words(step), after(state, step)?)))
            .collect();
        let key =
            |edge: &(JobState, String, JobState)| (edge.0.name(), edge.1.clone(), edge.2.name());
        drawn.sort_by_key(key);
        table.sort_by_key(key);
        assert_eq!(drawn, table);
    }

    /// `TakeBack` is "take back".
    fn words(step: Step) -> String {
        let mut words = String::new();
        for letter in format!("{step:?}").chars() {
            if letter.is_uppercase() && !words.is_empty() {
                words.push(' ');
            }
            words.extend(letter.to_lowercase());
        }
        words
    }

    #[test]
    fn every_last_state_can_be_reached_from_the_first() {
        let mut reached = vec![JobState::Pending];
        let mut looked_at = 0;
        while let Some(state) = reached.get(looked_at).copied() {
            looked_at += 1;
            for next in Step::ALL.iter().filter_map(|step| after(state, *step)) {
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
        }
        assert_eq!(reached.len(), JobState::ALL.len(), "{reached:?}");
    }
}
