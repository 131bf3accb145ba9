//! Workers: joining the pool, signs of life, and the list of PCs.

use axum::{Json, extract::State};
use lull_shared::{
    credentials::BearerToken,
    jobs::LABELS_MAX,
    problem::{Problem, ProblemKind},
    workers::{
        DrainWorker, Heartbeat, HeartbeatReply, RegisterReply, RegisterWorker, Worker, WorkerList,
        WorkerRef,
    },
};

use crate::{
    auth::{Identity, WorkerCaller},
    model::Enrolment,
    routes::{
        AppState,
        problem::{ApiError, ApiJson},
        submission,
    },
};

const SLOTS_MAX: u32 = 1024;
const CACHED_INPUTS_MAX: usize = 1000;
/// The most attempts one heartbeat may name.
const RUNNING_MAX: usize = 4096;

/// Join the pool, or say what has changed on a PC that joined before.
///
/// The first time the bearer token is the join code's part `lullj_<id>_<secret>` and the body carries the worker's own
/// token, of which only a hash is kept. Sent again, it changes nothing and spends no second use of the code.
#[utoipa::path(
    post,
    path = "/api/workers/register",
    tag = "workers",
    request_body = RegisterWorker,
    responses(
        (status = 200, description = "Registered", body = RegisterReply),
        (status = 409, description = "`conflict`: another PC has this id", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn register_worker(
    State(state): State<AppState>,
    identity: Identity,
    ApiJson(request): ApiJson<RegisterWorker>,
) -> Result<Json<RegisterReply>, ApiError> {
    check(&request)?;
    let enrolment = match identity {
        Identity::Worker(worker) => {
            check_own(worker, request.worker_id)?;
            Enrolment::Known
        }
        Identity::Joiner { code, secret } => {
            let token = request.worker_token.as_deref().unwrap_or_default().parse();
            let Ok(BearerToken::Worker(id, worker_secret)) = token else {
                return Err(ApiError::invalid("workerToken: a worker's token is needed to join"));
            };
            if id != request.worker_id {
                return Err(ApiError::invalid("workerToken: it names another worker"));
            }
            Enrolment::Join { code, code_secret: secret, worker_secret }
        }
        Identity::User(_) => return Err(ProblemKind::Forbidden.into()),
    };
    Ok(Json(state.scheduler.register(request, enrolment).await?))
}

fn check(request: &RegisterWorker) -> Result<(), ApiError> {
    let texts = [
        ("hostname", &request.hostname, 255),
        ("os", &request.os, 32),
        ("arch", &request.arch, 32),
        ("version", &request.version, 64),
    ];
    for (field, text, bytes_max) in texts {
        if !(1..=bytes_max).contains(&text.len()) || text.chars().any(char::is_control) {
            let rule = format!("{field}: 1 to {bytes_max} bytes without control characters");
            return Err(ApiError::invalid(rule));
        }
    }
    if request.labels.len() > LABELS_MAX {
        return Err(ApiError::invalid(format!("labels: at most {LABELS_MAX}")));
    }
    if let Some(label) = request.labels.iter().find(|label| !submission::is_label(label)) {
        let rule = format!("labels: {label:?} is not a label: {}", submission::LABEL_RULE);
        return Err(ApiError::invalid(rule));
    }
    if request.cached_inputs.len() > CACHED_INPUTS_MAX {
        return Err(ApiError::invalid(format!("cachedInputs: at most {CACHED_INPUTS_MAX}")));
    }
    if !(1..=SLOTS_MAX).contains(&request.slots) {
        return Err(ApiError::invalid(format!("slots: from 1 to {SLOTS_MAX}")));
    }
    Ok(())
}

fn check_own(worker: WorkerCaller, named: lull_shared::ids::WorkerId) -> Result<(), ApiError> {
    if worker.0 == named {
        return Ok(());
    }
    Err(ApiError::refused(ProblemKind::Forbidden, "workerId: a worker speaks for itself only"))
}

/// List the PCs: the older name of `GET /api/workers`.
#[utoipa::path(
    get,
    path = "/api/workers/register",
    tag = "workers",
    responses((status = 200, description = "The PCs of the pool", body = WorkerList)),
)]
pub(crate) async fn list_registered_workers(
    state: State<AppState>,
) -> Result<Json<WorkerList>, ApiError> {
    list_workers(state).await
}

/// List the PCs of the pool, by host name.
#[utoipa::path(
    get,
    path = "/api/workers",
    tag = "workers",
    responses((status = 200, description = "The PCs of the pool", body = WorkerList)),
)]
pub(crate) async fn list_workers(
    State(state): State<AppState>,
) -> Result<Json<WorkerList>, ApiError> {
    let workers = state.reads.workers(state.scheduler.now()).await?;
    Ok(Json(WorkerList { workers }))
}

/// Say that a worker is alive; renews the leases it names.
///
/// The reply names the attempts to stop: those it does not hold any more, and those a person cancelled.
#[utoipa::path(
    post,
    path = "/api/workers/heartbeat",
    tag = "workers",
    request_body = Heartbeat,
    responses((status = 200, description = "What became of the attempts it named", body = HeartbeatReply)),
)]
pub(crate) async fn send_heartbeat(
    State(state): State<AppState>,
    worker: WorkerCaller,
    ApiJson(request): ApiJson<Heartbeat>,
) -> Result<Json<HeartbeatReply>, ApiError> {
    check_own(worker, request.worker_id)?;
    if request.running.len() > RUNNING_MAX {
        return Err(ApiError::invalid(format!("running: at most {RUNNING_MAX} attempts")));
    }
    Ok(Json(state.scheduler.heartbeat(request).await?))
}

/// Drain a PC, or let it take jobs again.
///
/// A drained PC ends what it runs and takes nothing new, until it is let go.
#[utoipa::path(
    post,
    path = "/api/workers/drain",
    tag = "workers",
    request_body = DrainWorker,
    responses(
        (status = 200, description = "The PC as it now stands", body = Worker),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn drain_worker(
    State(state): State<AppState>,
    ApiJson(request): ApiJson<DrainWorker>,
) -> Result<Json<Worker>, ApiError> {
    Ok(Json(state.scheduler.drain_worker(request.worker_id, request.drain).await?))
}

/// Release a PC that was set aside.
///
/// A PC that fails jobs of three different users in a row gets none until somebody looked at it, or it was restarted.
#[utoipa::path(
    post,
    path = "/api/workers/release",
    tag = "workers",
    request_body = WorkerRef,
    responses(
        (status = 200, description = "The PC as it now stands", body = Worker),
        (status = 404, description = "`not_found`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn release_worker(
    State(state): State<AppState>,
    ApiJson(request): ApiJson<WorkerRef>,
) -> Result<Json<Worker>, ApiError> {
    Ok(Json(state.scheduler.release_worker(request.worker_id).await?))
}
