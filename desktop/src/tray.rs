//! The desktop as Tauri gives it: tray icon, window, events to the page.

use std::path::Path;

use lull_shared::local::LocalStatus;
use tauri::{
    AppHandle, Emitter as _, Wry,
    image::Image,
    menu::{MenuBuilder, MenuItem, MenuItemBuilder},
    tray::{TrayIcon, TrayIconBuilder},
};

use crate::{
    controller::Platform,
    menu::{Click, Entry, Icon, Menu, Tray},
    window,
};

/// Event that tells the page how this PC is.
pub const STATUS_EVENT: &str = "local-status";

/// The desktop that people see.
#[derive(Debug)]
pub struct TauriPlatform {
    app: AppHandle,
    tray: Option<DrawnTray>,
}

/// What is drawn at present, so that only changes are.
struct DrawnTray {
    icon: TrayIcon,
    shown: Tray,
    labels: Vec<MenuItem<Wry>>,
}

impl std::fmt::Debug for DrawnTray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrawnTray").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl TauriPlatform {
    /// Puts the icon into the tray. Goes on without one where the desktop has none to offer: the window
    /// shows the same. Call it on the main thread.
    #[must_use]
    pub fn new(
        app: AppHandle,
        icon_dir: &Path,
        tray: Tray,
        on_click: impl Fn(Click) + Send + Sync + 'static,
    ) -> Self {
        let drawn = draw(&app, icon_dir, tray, on_click);
        let tray =
            drawn.inspect_err(|error| tracing::warn!(%error, "no tray icon, only the window")).ok();
        Self { app, tray }
    }
}

impl Platform for TauriPlatform {
    fn show_tray(&mut self, tray: Tray) {
        let Some(drawn) = &mut self.tray else { return };
        if let Err(error) = drawn.change_to(&self.app, tray) {
            tracing::warn!(%error, "tray could not be drawn");
        }
    }

    fn show_window(&mut self) {
        let app = self.app.clone();
        tauri::async_runtime::spawn(async move {
            if let Err(error) = window::show(&app).await {
                tracing::error!(%error, "window could not be opened");
            }
        });
    }

    fn publish_status(&mut self, status: &LocalStatus) {
        if let Err(error) = self.app.emit(STATUS_EVENT, status) {
            tracing::warn!(%error, "status could not be told to the page");
        }
    }
}

fn draw(
    app: &AppHandle,
    icon_dir: &Path,
    tray: Tray,
    on_click: impl Fn(Click) + Send + Sync + 'static,
) -> tauri::Result<DrawnTray> {
    let (menu, labels) = build_menu(app, &tray.menu)?;
    let icon = TrayIconBuilder::with_id("lull")
        .icon(image(tray.icon))
        .tooltip(&tray.tooltip)
        .menu(&menu)
        .temp_dir_path(icon_dir)
        .on_menu_event(move |_app, event| {
            if let Some(click) = Click::from_id(event.id().as_ref()) {
                on_click(click);
            }
        })
        .build(app)?;
    Ok(DrawnTray { icon, shown: tray, labels })
}

impl DrawnTray {
    fn change_to(&mut self, app: &AppHandle, tray: Tray) -> tauri::Result<()> {
        if tray.icon != self.shown.icon {
            self.icon.set_icon(Some(image(tray.icon)))?;
        }
        if tray.tooltip != self.shown.tooltip {
            self.icon.set_tooltip(Some(&tray.tooltip))?;
        }
        if items(&tray.menu).eq(items(&self.shown.menu)) {
            // Only words changed: an open menu stays open.
            for (label, text) in self.labels.iter().zip(labels(&tray.menu)) {
                label.set_text(text)?;
            }
        } else {
            let (menu, labels) = build_menu(app, &tray.menu)?;
            self.icon.set_menu(Some(menu))?;
            self.labels = labels;
        }
        self.shown = tray;
        Ok(())
    }
}

/// The menu as the desktop draws it, and its labels by order.
fn build_menu(
    app: &AppHandle,
    menu: &Menu,
) -> tauri::Result<(tauri::menu::Menu<Wry>, Vec<MenuItem<Wry>>)> {
    let mut builder = MenuBuilder::new(app);
    let mut labels = Vec::new();
    for entry in &menu.entries {
        builder = match entry {
            Entry::Label(text) => {
                let label = MenuItemBuilder::new(text).enabled(false).build(app)?;
                labels.push(label.clone());
                builder.item(&label)
            }
            Entry::Item(click, text) => builder.text(click.id(), text),
            Entry::Separator => builder.separator(),
        };
    }
    Ok((builder.build()?, labels))
}

/// Everything of the menu but the words of its labels.
fn items(menu: &Menu) -> impl Iterator<Item = Option<Click>> + '_ {
    menu.entries.iter().map(|entry| match entry {
        Entry::Item(click, _) => Some(*click),
        Entry::Label(_) | Entry::Separator => None,
    })
}

fn labels(menu: &Menu) -> impl Iterator<Item = &str> {
    menu.entries.iter().filter_map(|entry| match entry {
        Entry::Label(text) => Some(text.as_str()),
        Entry::Item(..) | Entry::Separator => None,
    })
}

fn image(icon: Icon) -> Image<'static> {
    match icon {
        Icon::Ready => tauri::include_image!("icons/tray-ready.png"),
        Icon::Working => tauri::include_image!("icons/tray-working.png"),
        Icon::Waiting => tauri::include_image!("icons/tray-waiting.png"),
        Icon::NotConnected => tauri::include_image!("icons/tray-not-connected.png"),
        Icon::NotJoined => tauri::include_image!("icons/tray-not-joined.png"),
    }
}

/// Whether the desktop has a place for tray icons. A panel that is still starting gets some time.
#[cfg(target_os = "linux")]
pub async fn host_is_there() -> bool {
    use std::time::Duration;

    const WATCHER: &str = "org.kde.StatusNotifierWatcher";
    const PATIENCE: Duration = Duration::from_secs(10);

    let watcher_appears = async {
        let bus = zbus::Connection::session().await?;
        let bus = zbus::fdo::DBusProxy::new(&bus).await?;
        let name: zbus::names::BusName<'_> = WATCHER.try_into()?;
        while !bus.name_has_owner(name.clone()).await? {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok::<(), zbus::Error>(())
    };
    match tokio::time::timeout(PATIENCE, watcher_appears).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "no session bus, so no tray");
            false
        }
        Err(_too_late) => {
            tracing::warn!("this desktop has no tray");
            false
        }
    }
}

/// Whether the desktop has a place for tray icons: this one always has.
#[cfg(not(target_os = "linux"))]
pub async fn host_is_there() -> bool {
    true
}
