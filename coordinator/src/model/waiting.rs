//! What is known of a job that waits.

use lull_shared::{
    ids::WorkerId,
    jobs::{Job, Requirements},
    time::Timestamp,
    workers::Worker,
};

/// What the store knows of a job that waits, and of the pool, at one moment.
#[derive(Clone, Debug)]
pub struct WaitFacts {
    /// The job.
    pub job: Job,
    /// What it asks for.
    pub requirements: Requirements,
    /// Whether it may be claimed now.
    pub ready: bool,
    /// All workers.
    pub workers: Vec<Worker>,
    /// Workers that failed this job before.
    pub failed_on: Vec<WorkerId>,
    /// Ready jobs of the same user that come first.
    pub own_ahead: u64,
    /// Ready jobs with a higher priority.
    pub higher_priority: u64,
    /// Up to where this user was served, and the user's weight.
    pub turn: (u64, u32),
    /// Other users with ready jobs of the same priority: up to where they were served, their weight, and how many
    /// jobs they have.
    pub others: Vec<(u64, u32, u64)>,
    /// The turn that was last given.
    pub last_turn: u64,
    /// When workers' slots are expected to come free, going by how long such jobs took before.
    pub expected_free: Vec<(WorkerId, Timestamp)>,
}
