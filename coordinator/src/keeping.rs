//! The loop that removes what is not kept any longer: ended jobs with their output, and files nothing refers to.
//!
//! It works in small steps with a rest after each, so that it never holds up anybody's write for long.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    blobs::Blobs,
    model::Keeping,
    routes::AppState,
    scheduler::Scheduler,
    store::{StoreError, StoreRead},
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// How long it rests after a step.
const REST: Duration = Duration::from_millis(50);
/// How many jobs, or files, one step removes.
const STEP: u32 = 100;

/// What it works with.
pub(crate) struct Housekeeper {
    scheduler: Arc<Scheduler>,
    reads: Arc<dyn StoreRead>,
    blobs: Blobs,
}

impl Housekeeper {
    pub(crate) fn of(state: &AppState) -> Self {
        let (scheduler, reads) = (Arc::clone(&state.scheduler), Arc::clone(&state.reads));
        Self { scheduler, reads, blobs: state.blobs.clone() }
    }

    /// Removes one step's worth of what is not kept any longer, and tells whether there may be more.
    async fn step(&self, keeping: Keeping) -> anyhow::Result<bool> {
        let jobs = self.scheduler.sweep_jobs(keeping, STEP).await?;
        let forgotten = self.scheduler.forget_blobs(keeping, STEP).await?;
        for digest in &forgotten {
            // Somebody may be uploading it again right now.
            let is_recorded =
                async { Ok::<_, StoreError>(self.reads.blob_size(*digest).await?.is_some()) };
            self.blobs.remove_unless(*digest, is_recorded).await?;
        }
        if jobs > 0 || !forgotten.is_empty() {
            tracing::info!(jobs, files = forgotten.len(), "removed what is not kept any longer");
        }
        Ok(jobs >= STEP || forgotten.len() >= STEP as usize)
    }
}

/// Keeps house until `shutdown` is cancelled. A pass that fails is logged and tried again with the next one.
pub(crate) async fn run(housekeeper: Housekeeper, keeping: Keeping, shutdown: CancellationToken) {
    loop {
        let rest = match housekeeper.step(keeping).await {
            Ok(true) => REST,
            Ok(false) => EVERY,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "could not remove what is not kept");
                EVERY
            }
        };
        if shutdown.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use lull_shared::time::{Clock as _, SystemClock};

    use super::*;
    use crate::{model::Submitter, scheduler::Settings, store};

    struct House {
        keeper: Housekeeper,
        store: Arc<dyn store::Store>,
        _folder: tempfile::TempDir,
    }

    fn a_house() -> House {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(folder.path()).unwrap();
        let (clock, reads) = (Arc::new(SystemClock), Arc::clone(&store) as Arc<dyn StoreRead>);
        let scheduler = Arc::new(Scheduler::new(Arc::clone(&store), clock, Settings::default()));
        let blobs = Blobs::open(folder.path()).unwrap();
        House { keeper: Housekeeper { scheduler, reads, blobs }, store, _folder: folder }
    }

    impl House {
        async fn upload(&self, bytes: &'static [u8]) -> lull_shared::ids::Digest {
            let mut upload = self.keeper.blobs.begin().await.unwrap();
            upload.write(Bytes::from_static(bytes)).await.unwrap();
            let file = upload.finish().await.unwrap().keep().await.unwrap();
            self.keeper.scheduler.record_blob(file).await.unwrap();
            file.digest
        }

        async fn is_there(&self, digest: lull_shared::ids::Digest) -> bool {
            self.keeper.blobs.read(digest, None).await.is_ok()
        }
    }

    const NOTHING: Keeping = Keeping { jobs: Duration::ZERO, jobs_max: 0, files: Duration::ZERO };

    #[tokio::test]
    async fn files_that_nothing_refers_to_go_and_those_of_jobs_stay() {
        let house = a_house();
        let (used, unused) = (house.upload(b"used").await, house.upload(b"unused").await);
        let submitter = Submitter {
            token_id: lull_shared::ids::TokenId::generate(),
            name: "ann".to_owned(),
            weight: 1,
        };
        let request = lull_shared::jobs::CreateJob {
            command: "make".to_owned(),
            file_digest: Some(used),
            ..lull_shared::jobs::CreateJob::default()
        };
        let job = house.keeper.scheduler.create_job(request, &submitter).await.unwrap().job.job_id;
        tokio::time::sleep(Duration::from_millis(2)).await;

        while house.keeper.step(NOTHING).await.unwrap() {}
        assert!(house.is_there(used).await && !house.is_there(unused).await);

        house.keeper.scheduler.cancel(job).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        house.keeper.step(NOTHING).await.unwrap();
        house.keeper.step(NOTHING).await.unwrap();
        assert!(!house.is_there(used).await, "its job is not kept, so it is not");
        assert!(house.store.job(job).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_uploaded_again_while_it_is_removed_stays() {
        let house = a_house();
        let digest = house.upload(b"again").await;
        house.store.forget_blobs(SystemClock.now() + EVERY, 10).await.unwrap();
        house.upload(b"again").await;
        let is_recorded =
            async { Ok::<_, StoreError>(house.store.blob_size(digest).await?.is_some()) };
        assert!(!house.keeper.blobs.remove_unless(digest, is_recorded).await.unwrap());
        assert!(house.is_there(digest).await);
    }
}
