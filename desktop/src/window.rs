//! The window: made when somebody wants to see it, gone with all its memory when it is closed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tauri::{
    AppHandle, DragDropEvent, Emitter as _, Manager as _, Url, WebviewUrl, WebviewWindow,
    WebviewWindowBuilder, WindowEvent,
    webview::{NewWindowResponse, PageLoadEvent},
};
use tokio::time;

use crate::commands::AppState;

/// The one window; its permissions are in `capabilities/main.json`.
const LABEL: &str = "main";
/// Event that hands the page what was dropped on the window.
const ATTACHED_EVENT: &str = "attached";
/// Event that tells the page why what was dropped cannot be handed over.
const REFUSED_EVENT: &str = "attach-refused";

/// How long a window that is closing may take to be gone.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

/// Opens the window, or brings it to the front.
///
/// # Errors
///
/// When the desktop has no window to give.
pub async fn show(app: &AppHandle) -> tauri::Result<()> {
    let bring_or_open = async {
        loop {
            let Some(window) = app.get_webview_window(LABEL) else { return open(app) };
            if bring_to_front(&window)? {
                return Ok(());
            }
            // It is on its way out; the next one can come when its name is free.
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(CLOSING_LIMIT, bring_or_open).await.unwrap_or(Err(tauri::Error::WindowNotFound))
}

/// Says false for a window that was closed a moment ago and is only waiting to be forgotten.
fn bring_to_front(window: &WebviewWindow) -> tauri::Result<bool> {
    window.unminimize()?;
    window.show()?;
    if !window.is_visible().unwrap_or(false) {
        return Ok(false);
    }
    window.set_focus()?;
    Ok(true)
}

fn open(app: &AppHandle) -> tauri::Result<()> {
    let page = WebviewUrl::App(first_page(&app.state::<Arc<AppState>>()).into());
    let window = WebviewWindowBuilder::new(app, LABEL, page)
        .title("Lull")
        .inner_size(1120.0, 760.0)
        .min_inner_size(640.0, 480.0)
        .visible(false)
        .on_page_load(|window, load| {
            if load.event() == PageLoadEvent::Finished {
                reveal(&window);
            }
        })
        .on_navigation(is_own_page)
        .on_new_window(|_url, _features| NewWindowResponse::Deny)
        .devtools(cfg!(debug_assertions))
        .build()?;
    let app = app.clone();
    window.on_window_event(move |event| on_event(&app, event));
    Ok(())
}

/// Shown only now: no blank flash, and nobody can close it before the app listens.
fn reveal(window: &WebviewWindow) {
    if let Err(error) = window.show().and_then(|()| window.set_focus()) {
        tracing::error!(%error, "window could not be shown");
    }
}

/// Joining comes before signing in: a PC that is in no pool, and nobody's yet, shows where to paste the code.
fn first_page(state: &AppState) -> &'static str {
    let joined = state.worker.membership().is_some();
    if joined || state.session.client().is_ok() { "index.html" } else { "this-pc" }
}

/// The page stays where it is: nothing else is ever loaded into the window.
fn is_own_page(url: &Url) -> bool {
    match url.scheme() {
        "tauri" => url.host_str() == Some("localhost"),
        // Windows has the page there.
        "http" | "https" => url.host_str() == Some("tauri.localhost"),
        _ => false,
    }
}

fn on_event(app: &AppHandle, event: &WindowEvent) {
    let state = || Arc::clone(app.state::<Arc<AppState>>().inner());
    if let WindowEvent::Destroyed = event {
        state().follows.stop_all();
    }
    if let WindowEvent::DragDrop(DragDropEvent::Drop { paths, .. }) = event
        && let Some(path) = paths.first()
    {
        tauri::async_runtime::spawn(attach(app.clone(), state(), path.clone()));
    }
}

async fn attach(app: AppHandle, state: Arc<AppState>, path: PathBuf) {
    let told = match state.picks.add(path).await {
        Ok(picked) => app.emit(ATTACHED_EVENT, picked),
        Err(problem) => app.emit(REFUSED_EVENT, problem),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "drop could not be told to the page");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_own_page_is_loaded() {
        for (url, own) in [
            ("tauri://localhost/", true),
            ("tauri://localhost/jobs?x#y", true),
            ("http://tauri.localhost/", true),
            ("https://example.com/", false),
            ("http://localhost/", false),
            ("http://tauri.localhost.example.com/", false),
            ("tauri://elsewhere/", false),
            ("file:///etc/passwd", false),
            ("data:text/html,x", false),
        ] {
            assert_eq!(is_own_page(&url.parse().unwrap()), own, "{url}");
        }
    }
}
