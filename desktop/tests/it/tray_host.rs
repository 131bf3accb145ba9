//! A desktop's tray, as much of it as a test needs: the watcher that icons register with, and the hand that
//! opens an icon's menu and clicks.

use std::collections::HashMap;

use tokio::sync::mpsc;
use zbus::{
    Connection, Proxy, connection, interface,
    message::Header,
    names::BusName,
    zvariant::{OwnedObjectPath, OwnedValue, Structure, Value},
};

use crate::desk::{App, eventually};

/// Where an icon answers on the bus.
#[derive(Clone, Debug)]
struct Registration {
    sender: String,
    path: String,
}

struct Watcher {
    registered: mpsc::UnboundedSender<Registration>,
}

#[interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(&self, service: &str, #[zbus(header)] header: Header<'_>) {
        let sender = header.sender().expect("a bus names every sender").to_string();
        let path = if service.starts_with('/') { service } else { "/StatusNotifierItem" };
        self.registered.send(Registration { sender, path: path.to_owned() }).unwrap();
    }

    fn register_status_notifier_host(&self, _service: &str) {}

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        Vec::new()
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }
}

/// The tray of a desktop.
pub(crate) struct TrayHost {
    bus: Connection,
    registered: mpsc::UnboundedReceiver<Registration>,
}

impl TrayHost {
    pub(crate) async fn start(bus_address: &str) -> Self {
        let (sender, registered) = mpsc::unbounded_channel();
        let bus = connection::Builder::address(bus_address)
            .unwrap()
            .serve_at("/StatusNotifierWatcher", Watcher { registered: sender })
            .unwrap()
            .name("org.kde.StatusNotifierWatcher")
            .unwrap()
            .build()
            .await
            .unwrap();
        Self { bus, registered }
    }

    /// The icon of this app, once it appears.
    pub(crate) async fn icon(&mut self, app: &App) -> TrayIcon {
        let bus = zbus::fdo::DBusProxy::new(&self.bus).await.unwrap();
        let at = eventually("the icon appears", async || {
            let registration = self.registered.try_recv().ok()?;
            let sender = BusName::try_from(registration.sender.as_str()).unwrap();
            // An app that has ended meanwhile is not on the bus any more.
            let process = bus.get_connection_unix_process_id(sender).await.ok()?;
            (process == app.process_id()).then_some(registration)
        })
        .await;
        TrayIcon { bus: self.bus.clone(), at }
    }
}

/// One icon in the tray.
pub(crate) struct TrayIcon {
    bus: Connection,
    at: Registration,
}

/// One line of an open menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MenuLine {
    id: i32,
    pub(crate) text: String,
    pub(crate) enabled: bool,
    pub(crate) separator: bool,
}

type Properties = HashMap<String, OwnedValue>;

impl TrayIcon {
    /// The file that the icon shows now.
    pub(crate) async fn image(&self) -> String {
        self.item().await.get_property("IconName").await.unwrap()
    }

    /// What opens on a click; separators are `-`.
    pub(crate) async fn menu(&self) -> Vec<MenuLine> {
        let menu = self.dbusmenu().await;
        let none: &[&str] = &[];
        let layout: (u32, (i32, Properties, Vec<OwnedValue>)) =
            menu.call("GetLayout", &(0_i32, -1_i32, none)).await.unwrap();
        layout.1.2.into_iter().map(menu_line).collect()
    }

    /// The words of the menu, with `-` between groups.
    pub(crate) async fn words(&self) -> Vec<String> {
        self.menu().await.into_iter().map(|line| line.text).collect()
    }

    pub(crate) async fn click(&self, text: &str) {
        let lines = self.menu().await;
        let line = lines
            .iter()
            .find(|line| line.text == text)
            .unwrap_or_else(|| panic!("no {text:?} in {lines:?}"));
        let event = (line.id, "clicked", Value::from(0_i32), 0_u32);
        self.dbusmenu().await.call::<_, _, ()>("Event", &event).await.unwrap();
    }

    async fn item(&self) -> Proxy<'static> {
        let Registration { sender, path } = self.at.clone();
        Proxy::new(&self.bus, sender, path, "org.kde.StatusNotifierItem").await.unwrap()
    }

    async fn dbusmenu(&self) -> Proxy<'static> {
        let path: OwnedObjectPath = self.item().await.get_property("Menu").await.unwrap();
        Proxy::new(&self.bus, self.at.sender.clone(), path, "com.canonical.dbusmenu").await.unwrap()
    }
}

fn menu_line(value: OwnedValue) -> MenuLine {
    let line: Structure<'_> = Value::from(value).downcast().expect("a menu line is a structure");
    let (id, properties, _children): (i32, Properties, Vec<OwnedValue>) =
        line.try_into().expect("a menu line is (ia{sv}av)");
    let text = |name: &str| -> Option<String> {
        properties.get(name).and_then(|value| value.try_clone().ok()?.try_into().ok())
    };
    let flag = |name: &str| properties.get(name).and_then(|value| value.try_into().ok());
    let separator = text("type").as_deref() == Some("separator");
    MenuLine {
        id,
        text: if separator { "-".to_owned() } else { text("label").unwrap_or_default() },
        enabled: flag("enabled").unwrap_or(true),
        separator,
    }
}
