//! Readers that follow a job: each is woken at once when something happened to it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lull_shared::ids::JobId;
use tokio::sync::watch;

/// The jobs that somebody follows right now.
#[derive(Default)]
pub(super) struct Followers {
    jobs: Mutex<HashMap<JobId, watch::Sender<()>>>,
}

/// Somebody who follows a job. Begin to follow, then read the store, then wait: what happens in
/// between is not missed.
pub struct Follower {
    job: JobId,
    changes: watch::Receiver<()>,
    followers: Arc<Followers>,
}

impl Followers {
    pub(super) fn follow(self: &Arc<Self>, job: JobId) -> Follower {
        let mut jobs = self.lock();
        let changes = jobs.entry(job).or_insert_with(|| watch::channel(()).0).subscribe();
        Follower { job, changes, followers: Arc::clone(self) }
    }

    /// Wakes whoever follows the job.
    pub(super) fn notify(&self, job: JobId) {
        if let Some(sender) = self.lock().get(&job) {
            sender.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<()>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Waits until something happened to the job since the last call, or since following began.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The sender lives as long as any follower; without one there is nothing to wait for.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut jobs = self.followers.lock();
        // This follower's own receiver still counts.
        if jobs.get(&self.job).is_some_and(|sender| sender.receiver_count() <= 1) {
            jobs.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn what_happens_between_reading_and_waiting_is_not_missed() {
        let followers = Arc::new(Followers::default());
        let job = JobId::generate();
        let mut follower = followers.follow(job);

        followers.notify(job);
        follower.changed().await;

        assert!(follower.changed().now_or_never().is_none(), "one change wakes once");
        followers.notify(JobId::generate());
        assert!(follower.changed().now_or_never().is_none(), "another job's change is not ours");
    }

    #[test]
    fn a_job_that_nobody_follows_takes_no_memory() {
        let followers = Arc::new(Followers::default());
        let job = JobId::generate();
        let (first, second) = (followers.follow(job), followers.follow(job));

        drop(first);
        assert_eq!(followers.lock().len(), 1);
        drop(second);
        assert_eq!(followers.lock().len(), 0);
    }
}
