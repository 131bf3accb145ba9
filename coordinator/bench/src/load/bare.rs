//! A bare axum handler: it reads the same requests, answers with as much, and keeps nothing.

use std::time::{Duration, Instant};

use axum::{
    Json, Router,
    extract::Query,
    routing::{get, post},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lull_shared::{
    client::{Client, Trust},
    jobs::{ClaimQuery, CreateJob, SubmitResult},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Plan, a_job, measure};

/// It, and a client that speaks to it.
pub(super) struct Bare {
    client: Client,
    server: JoinHandle<()>,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Bare {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(async move {
            // It ends with the task.
            let _ = axum::serve(listener, routes()).await;
        });
        let client = Client::new(&[&url], Trust::System)?.with_token("bare".to_owned().into());
        Ok(Self { client, server })
    }

    /// Measures one operation.
    pub(super) async fn operation(&self, plan: &Plan) -> anyhow::Result<()> {
        let job = serde_json::to_value(a_job())?;
        let (client, job) = (&self.client, &job);
        measure("create", plan, || async move {
            client.request_json("POST", "/api/jobs/create", Some(job)).await?;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// How long so many requests of the three kinds of a lifecycle take, a third each.
    pub(super) async fn requests(&self, number: u32, at_once: usize) -> anyhow::Result<Duration> {
        let job = serde_json::to_value(a_job())?;
        let result = json!({
            "jobId": lull_shared::ids::JobId::generate(), "attempt": 1, "exitCode": 0,
        });
        let (client, job, result) = (&self.client, &job, &result);
        let begun = Instant::now();
        stream::iter(0..number)
            .map(|number| async move {
                let (method, path, body) = match number % 3 {
                    0 => ("POST", "/api/jobs/create", Some(job)),
                    1 => ("GET", "/api/jobs/get-job?wait=20&max=1", None),
                    _ => ("POST", "/api/jobs/submit-result", Some(result)),
                };
                let (status, _) = client.request_json(method, path, body).await?;
                anyhow::ensure!(status == 200, "{path} answered {status}");
                Ok(())
            })
            .buffer_unordered(at_once)
            .try_collect::<()>()
            .await?;
        Ok(begun.elapsed())
    }
}

/// About what the coordinator answers with.
fn routes() -> Router {
    Router::new()
        .route(
            "/api/jobs/create",
            post(|Json(job): Json<CreateJob>| async move { reply(&job.command, 600) }),
        )
        .route(
            "/api/jobs/get-job",
            get(|Query(query): Query<ClaimQuery>| async move {
                reply(if query.wait > 0 { "wait" } else { "" }, 500)
            }),
        )
        .route(
            "/api/jobs/submit-result",
            post(|Json(result): Json<SubmitResult>| async move {
                reply(if result.attempt > 0 { "recorded" } else { "" }, 100)
            }),
        )
}

fn reply(text: &str, padding: usize) -> Json<Value> {
    Json(json!({ "text": text, "padding": "x".repeat(padding) }))
}
