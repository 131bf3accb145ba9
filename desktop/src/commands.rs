//! The Tauri commands: the window's way to this machine and, with the token that it never sees, to the coordinator.

use std::sync::Arc;

use lull_shared::{
    events::PoolEvent,
    ids::{Digest, JobId},
    local::{LocalHistory, LocalStatus},
    output::{OutputEvent, OutputView},
    problem::{Problem, ProblemKind},
};
use lull_worker::WorkerHandle;
use serde::Serialize;
use serde_json::Value;
use tauri::{AppHandle, State, ipc::Channel};
use tauri_plugin_dialog::DialogExt as _;
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::Config,
    controller::Request,
    files::{self, PickKind, Picked, Picks, Transfer, Uploaded},
    follow::{FollowId, FollowMessage, Follows, Link},
    session::{Credentials, Session, SessionInfo},
};

/// What the commands work with.
#[derive(Debug)]
pub struct AppState {
    /// How the app runs.
    pub config: Config,
    /// The worker in this app.
    pub worker: WorkerHandle,
    /// To the controller.
    pub requests: mpsc::UnboundedSender<Request>,
    /// Who is signed in.
    pub session: Session,
    /// What the person chose to hand over.
    pub picks: Picks,
    /// What the page follows.
    pub follows: Follows,
}

type App<'a> = State<'a, Arc<AppState>>;

/// A reply of the coordinator, passed on as it is.
#[derive(Clone, Debug, Serialize)]
pub struct ApiReply {
    /// The HTTP status.
    pub status: u16,
    /// The JSON in the body.
    pub body: Value,
}

/// Where a result file is now.
#[derive(Clone, Debug, Serialize)]
pub struct Saved {
    /// The file.
    pub path: String,
}

/// Who is signed in.
#[tauri::command]
pub async fn session(app: App<'_>) -> Result<SessionInfo, Problem> {
    Ok(app.session.info(app.worker.membership()).await)
}

/// Signs in with a token.
#[tauri::command]
pub async fn sign_in(
    app: App<'_>,
    url: Option<String>,
    token: String,
    fingerprint: Option<String>,
) -> Result<SessionInfo, Problem> {
    let url = url.unwrap_or_default();
    let credentials = Credentials { url, token: token.trim().into(), fingerprint };
    app.session.sign_in(credentials, app.worker.membership()).await
}

/// Forgets the token.
#[tauri::command]
pub async fn sign_out(app: App<'_>) -> Result<(), Problem> {
    app.follows.stop_all();
    app.session.sign_out();
    Ok(())
}

/// Sends one request to the coordinator. A problem comes back as its status and body.
#[tauri::command]
pub async fn api_request(
    app: App<'_>,
    method: String,
    path: String,
    body: Option<Value>,
) -> Result<ApiReply, Problem> {
    let client = app.session.client()?;
    let reply = client.request_json(&method, &path, body.as_ref()).await;
    reply.map(|(status, body)| ApiReply { status, body }).map_err(|error| error.to_problem())
}

/// Follows a job's output, ready for a terminal.
#[tauri::command]
pub async fn follow_output(
    app: App<'_>,
    job_id: JobId,
    channel: Channel<FollowMessage<OutputEvent>>,
) -> Result<FollowId, Problem> {
    let client = app.session.client()?;
    let link = channel.clone();
    let events = client.follow_output_telling(job_id, OutputView::Terminal, move |_| {
        // A page that is gone ends the following by itself at the next event.
        let _ = link.send(FollowMessage::Link(Link::Disconnected));
    });
    Ok(app.follows.start(events, move |message| channel.send(message).is_ok()))
}

/// Follows what changes in the pool.
#[tauri::command]
pub async fn follow_pool(
    app: App<'_>,
    channel: Channel<FollowMessage<PoolEvent>>,
) -> Result<FollowId, Problem> {
    let client = app.session.client()?;
    let link = channel.clone();
    let events = client.follow_pool_telling(move |_| {
        // A page that is gone ends the following by itself at the next event.
        let _ = link.send(FollowMessage::Link(Link::Disconnected));
    });
    Ok(app.follows.start(events, move |message| channel.send(message).is_ok()))
}

/// Stops following; a direct run ends with it.
#[tauri::command]
pub async fn stop_following(app: App<'_>, follow_id: FollowId) -> Result<(), Problem> {
    app.follows.stop(follow_id);
    Ok(())
}

/// Lets the person choose a folder or a zip; nothing when they change their mind.
#[tauri::command]
pub async fn pick_files(
    app: App<'_>,
    handle: AppHandle,
    kind: PickKind,
) -> Result<Option<Picked>, Problem> {
    let (chosen, choice) = oneshot::channel();
    let dialog = handle.dialog().file();
    let done = move |path| drop(chosen.send(path));
    match kind {
        PickKind::Folder => dialog.set_title("Choose a folder").pick_folder(done),
        PickKind::Zip => {
            dialog.set_title("Choose a zip").add_filter("Zip", &["zip"]).pick_file(done);
        }
    }
    let Ok(Some(path)) = choice.await else { return Ok(None) };
    let path = path
        .into_path()
        .map_err(|error| Problem::new(ProblemKind::Invalid).with_detail(error.to_string()))?;
    app.picks.add(path).await.map(Some)
}

/// Hands over what was chosen.
#[tauri::command]
pub async fn upload_picked(
    app: App<'_>,
    pick_id: String,
    channel: Channel<Transfer>,
) -> Result<Uploaded, Problem> {
    let client = app.session.client()?;
    let zip = app.picks.zip(&pick_id).await?;
    files::upload(&client, &zip, report_to(channel)).await
}

/// Brings a result file home.
#[tauri::command]
pub async fn save_artifact(
    app: App<'_>,
    digest: Digest,
    name: String,
    channel: Channel<Transfer>,
) -> Result<Saved, Problem> {
    let client = app.session.client()?;
    let folder = &app.config.downloads_dir;
    let path = files::save(&client, digest, &name, folder, report_to(channel)).await?;
    Ok(Saved { path: path.display().to_string() })
}

/// Runs lines on the coordinator's own machine. Ends by itself or with [`stop_following`].
#[tauri::command]
pub async fn run_direct(
    app: App<'_>,
    command: String,
    pick_id: Option<String>,
    outputs: Option<Vec<String>>,
    channel: Channel<FollowMessage<OutputEvent>>,
) -> Result<FollowId, Problem> {
    let client = app.session.client()?;
    let zip = match pick_id {
        Some(pick_id) => Some(app.picks.zip(&pick_id).await?),
        None => None,
    };
    let outputs = outputs.unwrap_or_default();
    let path = zip.as_ref().map(files::Zip::path);
    let events = client.execute_direct(&command, &outputs, path, OutputView::Terminal).await;
    let events = events.map_err(|error| error.to_problem())?;
    Ok(app.follows.start(events, move |message| channel.send(message).is_ok()))
}

/// How this PC is.
#[tauri::command]
pub async fn local_status(app: App<'_>) -> Result<LocalStatus, Problem> {
    Ok(app.worker.status().borrow().clone())
}

/// The owner pauses or resumes.
#[tauri::command]
pub async fn set_paused(app: App<'_>, paused: bool) -> Result<(), Problem> {
    let stopped = |_| Problem::new(ProblemKind::Internal).with_detail("Lull is quitting");
    app.requests.send(Request::SetPaused(paused)).map_err(stopped)
}

/// Makes this PC part of a pool.
#[tauri::command]
pub async fn join(app: App<'_>, code: String) -> Result<LocalStatus, Problem> {
    app.worker.join(&code).await.map_err(|error| error.to_problem())
}

/// What ran on this PC, newest first.
#[tauri::command]
pub async fn local_history(app: App<'_>, limit: u32) -> Result<LocalHistory, Problem> {
    app.worker
        .history(limit)
        .await
        .map_err(|error| Problem::new(ProblemKind::Internal).with_detail(error.to_string()))
}

fn report_to(page: Channel<Transfer>) -> impl Fn(u64, u64) + Send + Sync + 'static {
    move |sent_bytes, total_bytes| {
        // A page that is gone needs no progress.
        let _ = page.send(Transfer { sent_bytes, total_bytes });
    }
}
