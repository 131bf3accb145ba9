//! A desktop for one test: a display, a session bus and a home of its own, and the app on it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time,
};
use x11rb::{
    connection::Connection as _,
    protocol::xproto::{
        AtomEnum, CLIENT_MESSAGE_EVENT, ClientMessageEvent, ConnectionExt as _, EventMask,
        MapState, Window,
    },
    rust_connection::RustConnection,
};

/// How long anything may take that normally takes a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// Waits until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A display, a session bus and a home.
pub(crate) struct Desk {
    home: TempDir,
    display: String,
    bus: String,
    _programs: [Child; 2],
}

impl Desk {
    pub(crate) async fn start() -> Self {
        let home = tempfile::Builder::new().prefix("lull-desk").tempdir().unwrap();
        let run = home.path().join("run");
        std::fs::create_dir(&run).unwrap();
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700)).unwrap();

        let mut display = Command::new("Xvfb");
        display.args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-noreset"]);
        let (display, number) =
            start_and_read_line(display.args(["-nolisten", "tcp"]), "xvfb").await;
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
        let (bus, address) = start_and_read_line(&mut bus, "dbus").await;
        Self { home, display: format!(":{number}"), bus: address, _programs: [display, bus] }
    }

    /// A program on this desktop. It inherits nothing but where programs are found.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
            .env("HOME", self.home.path())
            .env("LANG", "C.UTF-8")
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("DISPLAY", &self.display)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.bus)
            .env("NO_AT_BRIDGE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Starts the app with its data in this desktop's home.
    pub(crate) fn start_app(&self, args: &[&str]) -> App {
        let app = Path::new(env!("CARGO_BIN_EXE_lull-desktop"));
        let mut command = self.command(app);
        command.arg("--data-dir").arg(self.data_dir()).args(args);
        App { child: command.spawn().unwrap() }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn bus_address(&self) -> &str {
        &self.bus
    }

    /// The windows of the app that can be seen.
    pub(crate) fn windows(&self) -> Vec<Window> {
        let (x11, screen) = RustConnection::connect(Some(&self.display)).unwrap();
        let root = x11.setup().roots[screen].root;
        let tree = x11.query_tree(root).unwrap().reply().unwrap();
        tree.children.into_iter().filter(|window| is_shown_lull(&x11, *window)).collect()
    }

    /// Does what the window's close button does.
    pub(crate) fn close(&self, window: Window) {
        let (x11, _) = RustConnection::connect(Some(&self.display)).unwrap();
        let atom =
            |name: &str| x11.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
        let data = [atom("WM_DELETE_WINDOW"), x11rb::CURRENT_TIME, 0, 0, 0];
        let please = ClientMessageEvent {
            response_type: CLIENT_MESSAGE_EVENT,
            format: 32,
            sequence: 0,
            window,
            type_: atom("WM_PROTOCOLS"),
            data: data.into(),
        };
        x11.send_event(false, window, EventMask::NO_EVENT, please).unwrap().check().unwrap();
    }

    pub(crate) async fn window_opens(&self) -> Window {
        eventually("the window opens", async || self.windows().first().copied()).await
    }

    pub(crate) async fn window_is_gone(&self) {
        eventually("the window is gone", async || self.windows().is_empty().then_some(())).await;
    }
}

/// Windows may go away while they are looked at: then they are not shown.
fn is_shown_lull(x11: &RustConnection, window: Window) -> bool {
    let look = || -> Result<bool, Box<dyn std::error::Error>> {
        let name = x11.get_property(false, window, AtomEnum::WM_NAME, AtomEnum::ANY, 0, 64)?;
        let attributes = x11.get_window_attributes(window)?;
        let viewable = attributes.reply()?.map_state == MapState::VIEWABLE;
        Ok(viewable && name.reply()?.value == b"Lull")
    };
    look().unwrap_or(false)
}

/// The running app; killed when dropped.
pub(crate) struct App {
    child: Child,
}

impl App {
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id().expect("the app runs")
    }

    /// Asks the app to end as the system does at a log-out.
    pub(crate) async fn terminate(&self) {
        let id = self.process_id().to_string();
        let asked = Command::new("kill").arg(id).status().await.unwrap();
        assert!(asked.success());
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        let ended = time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the app ends in time").unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Starts a program that says on its first line where it answers.
async fn start_and_read_line(command: &mut Command, package: &str) -> (Child, String) {
    let started = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let mut child = started
        .unwrap_or_else(|error| panic!("this test needs the package {package} installed: {error}"));
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let line = time::timeout(PATIENCE, lines.next_line()).await;
    let line = line.unwrap_or_else(|_| panic!("{package} does not start")).unwrap();
    (child, line.unwrap_or_else(|| panic!("{package} ended at once")))
}
