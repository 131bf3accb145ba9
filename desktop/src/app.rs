//! Puts the parts together: one tokio runtime, the worker, the tray, the window, the way to the end.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use lull_worker::{Worker, WorkerConfig, WorkerHandle};
use tauri::{App, AppHandle, Manager as _, RunEvent};
use tauri_plugin_dialog::{DialogExt as _, MessageDialogKind};
use tokio::sync::mpsc;

use crate::{
    commands::{self, AppState},
    config::{Args, Config, Folders},
    controller::{Controller, Request},
    files::Picks,
    follow::Follows,
    menu::Tray,
    session::Session,
    tray::TauriPlatform,
};

/// Runs the app until somebody quits.
#[must_use]
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new("info");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "could not start");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<i32> {
    // Whoever installed one first wins; there is no other in this program.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = Config::resolve(args, Folders::of_this_account()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    tauri::async_runtime::set(runtime.handle().clone());

    let (requests, inbox) = mpsc::unbounded_channel();
    let again = requests.clone();
    let app = tauri::Builder::default()
        // First of all: a second start must not touch anything before it steps back.
        .plugin(tauri_plugin_single_instance::init(move |_app, _args, _folder| {
            // A controller that is gone is about to end the app.
            let _ = again.send(Request::OpenWindow);
        }))
        .plugin(tauri_plugin_dialog::init())
        .invoke_handler(tauri::generate_handler![
            commands::session,
            commands::sign_in,
            commands::sign_out,
            commands::api_request,
            commands::follow_output,
            commands::follow_pool,
            commands::stop_following,
            commands::pick_files,
            commands::upload_picked,
            commands::save_artifact,
            commands::run_direct,
            commands::local_status,
            commands::set_paused,
            commands::join,
            commands::local_history,
        ])
        .setup(move |app| {
            if let Err(error) = set_up(app, config, requests, inbox) {
                give_up(app.handle(), &error);
            }
            Ok(())
        })
        .build(context())
        .context("could not reach the desktop")?;
    Ok(app.run_return(|_app, event| {
        if let RunEvent::ExitRequested { code: None, api, .. } = event {
            // The last window was closed; the tray stays.
            api.prevent_exit();
        }
    }))
}

/// Settings, icons and the page, built in.
#[expect(
    clippy::disallowed_methods,
    reason = "the macro itself holds it, for a panic while the built-in data is read"
)]
fn context() -> tauri::Context {
    tauri::generate_context!()
}

fn set_up(
    app: &App,
    config: Config,
    requests: mpsc::UnboundedSender<Request>,
    inbox: mpsc::UnboundedReceiver<Request>,
) -> anyhow::Result<()> {
    let picks = Picks::open(config.packing_dir.clone())
        .with_context(|| format!("could not use {}", config.packing_dir.display()))?;
    let worker = WorkerConfig::new(config.worker_dir.clone());
    let worker = tauri::async_runtime::block_on(Worker::start(worker))?;

    let clicks = requests.clone();
    let tray = Tray::for_state(&worker.status().borrow());
    let platform = TauriPlatform::new(app.handle().clone(), &config.icon_dir, tray, move |click| {
        // A controller that is gone is about to end the app.
        let _ = clicks.send(Request::from(click));
    });

    tauri::async_runtime::spawn(quit_on_signal(requests.clone()));
    tauri::async_runtime::spawn(open_window_at_start(config.hidden, requests.clone()));
    app.manage(Arc::new(AppState {
        session: Session::open(config.login_file.clone()),
        config,
        worker: worker.clone(),
        requests,
        picks,
        follows: Follows::default(),
    }));
    tauri::async_runtime::spawn(control(app.handle().clone(), platform, worker, inbox));
    Ok(())
}

async fn control(
    app: AppHandle,
    platform: TauriPlatform,
    worker: WorkerHandle,
    inbox: mpsc::UnboundedReceiver<Request>,
) {
    Controller::new(platform, worker, inbox).run().await;
    app.exit(0);
}

/// Opens the window unless the app is to stay in the tray, and there is one.
async fn open_window_at_start(hidden: bool, requests: mpsc::UnboundedSender<Request>) {
    if !hidden || !crate::tray::host_is_there().await {
        // A controller that is gone is about to end the app.
        let _ = requests.send(Request::OpenWindow);
    }
}

/// Ends the app in good order when the system or a terminal asks for it.
async fn quit_on_signal(requests: mpsc::UnboundedSender<Request>) {
    asked_to_end().await;
    // A controller that is gone is about to end the app.
    let _ = requests.send(Request::Quit);
}

#[cfg(unix)]
async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};

    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be heard");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(not(unix))]
async fn asked_to_end() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

/// Says why there is nothing to see, and ends.
fn give_up(app: &AppHandle, error: &anyhow::Error) {
    tracing::error!(error = format!("{error:#}"), "could not start");
    let ending = app.clone();
    app.dialog()
        .message(format!("{error:#}"))
        .title("Lull could not start")
        .kind(MessageDialogKind::Error)
        .show(move |_| ending.exit(1));
}
