//! Accepted submissions a second, next to a bare axum handler with the same payload in the same run.

use std::time::{Duration, Instant};

use axum::{Json, Router, routing::post};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lull_bench::pool::Pool;
use lull_shared::{
    client::{Client, Trust},
    credentials::Role,
    jobs::CreateJob,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::figures::{line, print_disk_sync, rate};

pub(crate) async fn run(requests: u32, at_once: u32) -> anyhow::Result<()> {
    let pool = Pool::start(&[])?;
    let token = pool.token(Role::Submitter)?;
    let ours = Client::new(&[&pool.http_url], Trust::System)?.with_token(token.clone().into());

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let bare_url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(axum::serve(listener, bare()).into_future());
    let bare = Client::new(&[&bare_url], Trust::System)?.with_token(token.into());

    let accepted = submit(&ours, requests, at_once).await?;
    let handled = submit(&bare, requests, at_once).await?;
    server.abort();

    line(
        &format!("accepted submissions, on disk before the reply, {at_once} at once"),
        &format!("{:8.0} /s", rate(requests, accepted)),
    );
    line("a bare axum handler, same payload", &format!("{:8.0} /s", rate(requests, handled)));
    line("ratio", &format!("{:8.2}", handled.as_secs_f64() / accepted.as_secs_f64()));
    print_disk_sync(&pool.coordinator_data())
}

/// Reads the submission and answers with about as much as the coordinator does; keeps nothing.
fn bare() -> Router {
    Router::new().route(
        "/api/jobs/create",
        post(|Json(job): Json<CreateJob>| async move {
            Json(json!({ "command": job.command, "padding": "x".repeat(600) }))
        }),
    )
}

async fn submit(client: &Client, requests: u32, at_once: u32) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    stream::iter(0..requests)
        .map(|number| async move {
            let job = json!({ "command": format!("echo {number}"), "name": "a write" });
            let (status, reply) =
                client.request_json("POST", "/api/jobs/create", Some(&job)).await?;
            anyhow::ensure!(
                status < 300,
                "refused: {}",
                reply.get("detail").unwrap_or(&Value::Null)
            );
            Ok(())
        })
        .buffer_unordered(at_once.try_into()?)
        .try_collect::<()>()
        .await?;
    Ok(begun.elapsed())
}
