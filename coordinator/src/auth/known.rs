//! Tokens that the store knew a moment ago, so that a burst of requests asks it once.
//!
//! What is remembered lets in and never turns away: a token that does not match it is looked up in the store. So one
//! that was just made counts at once, and one that was revoked ends within [`FRESH`].

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    model::ApiToken,
    store::{StoreError, StoreRead},
};
use lull_shared::{
    credentials::SecretHash,
    ids::{TokenId, WorkerId},
};
use secrecy::SecretString;

/// How long what the store said counts.
const FRESH: Duration = Duration::from_secs(1);
/// More are not remembered at once.
const KNOWN_MAX: usize = 16_384;

/// The tokens of workers, people and programs.
pub struct KnownTokens {
    reads: Arc<dyn StoreRead>,
    workers: Recent<WorkerId, SecretHash>,
    tokens: Recent<TokenId, ApiToken>,
}

/// An API token, and whether the store was asked for it just now.
pub(super) struct Found {
    pub(super) token: ApiToken,
    pub(super) anew: bool,
}

impl KnownTokens {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(reads: Arc<dyn StoreRead>) -> Self {
        Self { reads, workers: Recent::default(), tokens: Recent::default() }
    }

    /// Whether this is a worker's own secret.
    pub(super) async fn is_worker(
        &self,
        id: WorkerId,
        secret: &SecretString,
    ) -> Result<bool, StoreError> {
        if self.workers.get(&id, Instant::now()).is_some_and(|hash| hash.matches(secret)) {
            return Ok(true);
        }
        let hash = self.reads.worker_secret(id).await?.filter(|hash| hash.matches(secret));
        Ok(hash.map(|hash| self.workers.put(id, hash, Instant::now())).is_some())
    }

    /// The API token with this secret.
    pub(super) async fn token(
        &self,
        id: TokenId,
        secret: &SecretString,
    ) -> Result<Option<Found>, StoreError> {
        let known =
            self.tokens.get(&id, Instant::now()).filter(|token| token.secret.matches(secret));
        if let Some(token) = known {
            return Ok(Some(Found { token, anew: false }));
        }
        let token = self.reads.token(id).await?.filter(|token| token.secret.matches(secret));
        Ok(token.map(|token| {
            self.tokens.put(id, token.clone(), Instant::now());
            Found { token, anew: true }
        }))
    }
}

/// What was heard of each key in the last [`FRESH`].
struct Recent<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, value) = known.get(key).filter(|(heard, _)| is_fresh(*heard, now))?;
        Some(value.clone())
    }

    fn put(&self, key: K, value: V, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (heard, _)| is_fresh(*heard, now));
        }
        if known.len() < KNOWN_MAX {
            known.insert(key, (now, value));
        }
    }
}

fn is_fresh(heard: Instant, now: Instant) -> bool {
    now.duration_since(heard) < FRESH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_counts_for_a_moment() {
        let (recent, now) = (Recent::default(), Instant::now());
        recent.put("worker", 1, now);
        assert_eq!(recent.get(&"worker", now + FRESH / 2), Some(1));
        assert_eq!(recent.get(&"worker", now + FRESH), None);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (recent, now) = (Recent::default(), Instant::now());
        for key in 0..=KNOWN_MAX {
            recent.put(key, key, now);
        }
        assert_eq!(recent.get(&0, now), Some(0));
        assert_eq!(recent.get(&KNOWN_MAX, now), None, "there was no room");
        let later = now + FRESH;
        recent.put(KNOWN_MAX, KNOWN_MAX, later);
        assert_eq!(recent.get(&KNOWN_MAX, later), Some(KNOWN_MAX), "the old ones made room");
    }
}
