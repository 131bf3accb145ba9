//! Refuses archives that break a rule before a job is made of them, and remembers those that do not.

use std::{
    collections::HashSet,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use lull_shared::{
    archive::{self, ArchiveError, Limits},
    ids::Digest,
    problem::ProblemKind,
};
use tokio::sync::Semaphore;

use crate::routes::problem::ApiError;

/// How many archives are read at once.
const AT_ONCE: usize = 2;
/// How many good archives are remembered; then remembering begins anew.
const REMEMBERED_MAX: usize = 65_536;

/// The gate that archives pass.
pub struct Archives {
    limits: Limits,
    good: Mutex<HashSet<Digest>>,
    turns: Semaphore,
}

impl Default for Archives {
    fn default() -> Self {
        Self { limits: Limits::default(), good: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Archives {
    /// Passes if the archive keeps the rules. `digest` names its bytes; a good one is not read again.
    ///
    /// # Errors
    /// `archive_refused` with the entry and the rule, or the disk's own.
    pub async fn check(&self, digest: Digest, file: PathBuf) -> Result<(), ApiError> {
        if self.good.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest) {
            return Ok(());
        }
        let _turn = self.turns.acquire().await.map_err(ApiError::internal)?;
        let limits = self.limits;
        let checked = tokio::task::spawn_blocking(move || read(&file, &limits)).await;
        checked.map_err(ApiError::internal)??;
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED_MAX {
            good.clear();
        }
        good.insert(digest);
        Ok(())
    }
}

fn read(path: &Path, limits: &Limits) -> Result<(), ApiError> {
    let file = File::open(path)
        .with_context(|| format!("could not open {}", path.display()))
        .map_err(ApiError::internal)?;
    match archive::check(BufReader::new(file), limits) {
        Ok(_) => Ok(()),
        Err(ArchiveError::Refused(rule)) => {
            Err(ApiError::refused(ProblemKind::ArchiveRefused, rule))
        }
        Err(error @ ArchiveError::Io { .. }) => Err(ApiError::internal(error)),
    }
}
