//! Tells a waiting person why nothing happens, as often as the reason changes.

use std::{convert::Infallible, time::Duration};

use futures_util::{StreamExt as _, future::pending, stream::BoxStream};
use indicatif::ProgressBar;
use lull_shared::{
    client::{Client, ClientError},
    events::PoolEvent,
    ids::JobId,
    jobs::{Explanation, WaitReason},
};
use serde::Serialize;
use tokio::time::{self, Instant};

use crate::{
    output::{Output, clean},
    progress,
};

/// A job that starts within this time needs no word about waiting.
const PATIENCE: Duration = Duration::from_secs(1);
/// However much happens in the pool, the reason is asked for this often at most.
const APART: Duration = Duration::from_secs(1);

/// A job that has not begun, as somebody watches it.
pub(crate) struct Waiting<'a> {
    client: &'a Client,
    output: &'a Output,
    job_id: JobId,
    look_at: Instant,
    pool: Option<BoxStream<'static, Result<PoolEvent, ClientError>>>,
    said: Option<WaitReason>,
    bar: Option<ProgressBar>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "waiting")]
struct Told<'a> {
    explanation: &'a Explanation,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(client: &'a Client, output: &'a Output, job_id: JobId) -> Self {
        let look_at = Instant::now() + PATIENCE;
        Self { client, output, job_id, look_at, pool: None, said: None, bar: None }
    }

    /// Whether anybody wants to know.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.output.json || self.output.is_watched()
    }

    /// Says why the job waits, first after a moment of patience, then whenever something changed in the pool and the
    /// reason with it. Goes on where it was when it is dropped and called again.
    pub(crate) async fn tell(&mut self) -> anyhow::Result<Infallible> {
        loop {
            time::sleep_until(self.look_at).await;
            // The stream of output says by itself when the coordinator is away.
            if let Ok(explanation) = self.client.explain_job(self.job_id).await {
                self.say(&explanation)?;
            }
            let pool = self.pool.get_or_insert_with(|| self.client.follow_pool());
            match pool.next().await {
                Some(Ok(_)) => self.look_at = Instant::now() + APART,
                Some(Err(_)) | None => pending().await,
            }
        }
    }

    fn say(&mut self, explanation: &Explanation) -> anyhow::Result<()> {
        let Some(reason) = explanation.reason else { return Ok(()) };
        if self.said == Some(reason) {
            return Ok(());
        }
        self.said = Some(reason);
        if self.output.json {
            return self.output.value(&Told { explanation });
        }
        self.hide();
        self.output.note(&format!("waiting: {}", clean(&explanation.sentences.join(" "))));
        self.bar = Some(progress::waiting());
        Ok(())
    }

    /// It has begun.
    pub(crate) fn end(&mut self) {
        self.hide();
        self.pool = None;
        self.said = None;
    }

    /// It waits again.
    pub(crate) fn again(&mut self) {
        self.look_at = Instant::now() + PATIENCE;
    }

    /// Takes the sign of waiting away, so that something else can be written.
    pub(crate) fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hide();
    }
}
