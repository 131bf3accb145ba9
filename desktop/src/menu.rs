//! The tray as a value: icon, tooltip and menu for one state of this PC. Drawing it is `tray.rs`.

use lull_shared::{
    local::{Connection, LocalStatus},
    workers::{SuspendReason, WorkerState},
};

/// Everything the tray shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tray {
    /// Which icon.
    pub icon: Icon,
    /// Text beside the pointer.
    pub tooltip: String,
    /// What a click opens.
    pub menu: Menu,
}

/// The icon of one state; each has its own shape, so that colour alone says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Icon {
    /// Waits for a job.
    Ready,
    /// Runs a job.
    Working,
    /// Takes nothing for now.
    Waiting,
    /// The coordinator does not answer or refuses this PC.
    NotConnected,
    /// This PC is in no pool yet.
    NotJoined,
}

impl Icon {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ready, Self::Working, Self::Waiting, Self::NotConnected, Self::NotJoined];
}

/// What a person can choose in the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Click {
    /// Hold what runs and take nothing new.
    Pause,
    /// Take work again.
    Resume,
    /// Show the window.
    OpenWindow,
    /// End the app.
    Quit,
}

impl Click {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pause, Self::Resume, Self::OpenWindow, Self::Quit];

    /// The name by which the desktop reports the click.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::OpenWindow => "open",
            Self::Quit => "quit",
        }
    }

    /// Reads what [`Click::id`] gave.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|click| click.id() == id)
    }
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Text that cannot be chosen.
    Label(String),
    /// Text that can.
    Item(Click, &'static str),
    /// A line between groups.
    Separator,
}

/// The tray menu, top to bottom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu {
    /// Its lines.
    pub entries: Vec<Entry>,
}

impl Tray {
    /// The tray for one state of this PC. Same state, same tray: tests compare values, not pixels.
    #[must_use]
    pub fn for_state(status: &LocalStatus) -> Self {
        let headline = headline(status);
        Self {
            icon: icon(status),
            tooltip: format!("Lull: {headline}"),
            menu: Menu::for_state(status),
        }
    }
}

impl Menu {
    /// The menu for one state of this PC.
    #[must_use]
    pub fn for_state(status: &LocalStatus) -> Self {
        let menu = Self::default().label(headline(status)).separator();
        let menu = match (is_joined(status), status.paused) {
            (false, _) => menu,
            (true, false) => menu.item(Click::Pause, "Pause"),
            (true, true) => menu.item(Click::Resume, "Resume"),
        };
        menu.item(Click::OpenWindow, "Open Lull").separator().item(Click::Quit, "Quit")
    }

    fn label(mut self, text: String) -> Self {
        self.entries.push(Entry::Label(text));
        self
    }

    fn item(mut self, click: Click, text: &'static str) -> Self {
        self.entries.push(Entry::Item(click, text));
        self
    }

    fn separator(mut self) -> Self {
        self.entries.push(Entry::Separator);
        self
    }
}

fn is_joined(status: &LocalStatus) -> bool {
    status.connection != Connection::NotJoined
}

fn icon(status: &LocalStatus) -> Icon {
    match (&status.connection, status.state) {
        (Connection::NotJoined, _) => Icon::NotJoined,
        _ if status.paused => Icon::Waiting,
        (
            Connection::Connecting { .. }
            | Connection::Unreachable { .. }
            | Connection::Refused { .. },
            _,
        )
        | (Connection::Connected { .. }, WorkerState::Offline) => Icon::NotConnected,
        (Connection::Connected { .. }, WorkerState::Ready) => Icon::Ready,
        (Connection::Connected { .. }, WorkerState::Draining) if status.running.is_empty() => {
            Icon::Waiting
        }
        (Connection::Connected { .. }, WorkerState::Working | WorkerState::Draining) => {
            Icon::Working
        }
        (Connection::Connected { .. }, WorkerState::Suspended | WorkerState::Unknown) => {
            Icon::Waiting
        }
    }
}

fn headline(status: &LocalStatus) -> String {
    let jobs = count_jobs(status.running.len());
    match (&status.connection, status.state) {
        (Connection::NotJoined, _) => "Not in a pool yet".to_owned(),
        _ if status.paused => with_held_jobs("Paused".to_owned(), status),
        (Connection::Connecting { address }, _) => format!("Connecting to {}", host(address)),
        (Connection::Unreachable { address, .. }, _) => {
            format!("No answer from {}", host(address))
        }
        (Connection::Refused { address, .. }, _) => format!("Refused by {}", host(address)),
        (Connection::Connected { .. }, WorkerState::Ready) => "Ready for work".to_owned(),
        (Connection::Connected { .. }, WorkerState::Working) => format!("Working on {jobs}"),
        (Connection::Connected { .. }, WorkerState::Draining) if status.running.is_empty() => {
            "Takes no new jobs for now".to_owned()
        }
        (Connection::Connected { .. }, WorkerState::Draining) => format!("Finishing {jobs}"),
        (Connection::Connected { .. }, WorkerState::Offline) => "Not connected".to_owned(),
        (Connection::Connected { .. }, WorkerState::Suspended | WorkerState::Unknown) => {
            with_held_jobs(format!("Waiting: {}", reason(status.reason)), status)
        }
    }
}

/// A menu is narrow: that it is HTTPS goes without saying.
fn host(address: &str) -> &str {
    address.strip_prefix("https://").unwrap_or(address)
}

fn with_held_jobs(text: String, status: &LocalStatus) -> String {
    match status.running.len() {
        0 => text,
        held => format!("{text}, {} on hold", count_jobs(held)),
    }
}

fn count_jobs(count: usize) -> String {
    match count {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    }
}

const fn reason(reason: Option<SuspendReason>) -> &'static str {
    match reason {
        Some(SuspendReason::OwnerActive) => "you are using this PC",
        Some(SuspendReason::CpuBusy) => "other programs are busy",
        Some(SuspendReason::OnBattery) => "on battery",
        Some(SuspendReason::IdleTimeUnknown) => "cannot tell whether you are here",
        Some(SuspendReason::PausedByOwner) => "paused",
        Some(SuspendReason::Unknown) | None => "not now",
    }
}

#[cfg(test)]
mod tests {
    use lull_shared::{
        ids::{JobId, WorkerId},
        local::LocalAttempt,
        time::Timestamp,
        workers::SandboxLevel,
    };

    use super::*;

    #[test]
    fn a_pc_on_battery_says_so_and_can_still_be_paused() {
        let status = LocalStatus {
            state: WorkerState::Suspended,
            reason: Some(SuspendReason::OnBattery),
            ..connected()
        };
        let expected = Menu::default()
            .label("Waiting: on battery".to_owned())
            .separator()
            .item(Click::Pause, "Pause")
            .item(Click::OpenWindow, "Open Lull")
            .separator()
            .item(Click::Quit, "Quit");
        assert_eq!(Menu::for_state(&status), expected);
    }

    #[test]
    fn a_pc_in_no_pool_has_nothing_to_pause() {
        let status = LocalStatus {
            connection: Connection::NotJoined,
            state: WorkerState::Offline,
            ..connected()
        };
        let expected = Menu::default()
            .label("Not in a pool yet".to_owned())
            .separator()
            .item(Click::OpenWindow, "Open Lull")
            .separator()
            .item(Click::Quit, "Quit");
        assert_eq!(Menu::for_state(&status), expected);
    }

    #[test]
    fn a_paused_pc_offers_to_resume_even_when_nobody_answers() {
        let status = LocalStatus { paused: true, connection: unreachable(), ..connected() };
        let menu = Menu::for_state(&status);
        assert_eq!(menu.entries[0], Entry::Label("Paused".to_owned()));
        assert!(menu.entries.contains(&Entry::Item(Click::Resume, "Resume")));
    }

    #[test]
    fn every_state_has_its_icon_and_its_words() {
        use SuspendReason as Why;
        use WorkerState as State;

        let address = || "https://pool.example:7700".to_owned();
        let connected = |state, reason, jobs| LocalStatus {
            state,
            reason,
            running: (0..jobs).map(|_| attempt()).collect(),
            ..connected()
        };
        let linked = |connection| LocalStatus { connection, ..self::connected() };
        let suspended = |why| connected(State::Suspended, Some(why), 0);
        let table = [
            (connected(State::Ready, None, 0), Icon::Ready, "Ready for work"),
            (connected(State::Working, None, 1), Icon::Working, "Working on 1 job"),
            (connected(State::Working, None, 3), Icon::Working, "Working on 3 jobs"),
            (connected(State::Draining, None, 1), Icon::Working, "Finishing 1 job"),
            (connected(State::Draining, None, 0), Icon::Waiting, "Takes no new jobs for now"),
            (connected(State::Offline, None, 0), Icon::NotConnected, "Not connected"),
            (suspended(Why::OwnerActive), Icon::Waiting, "Waiting: you are using this PC"),
            (suspended(Why::CpuBusy), Icon::Waiting, "Waiting: other programs are busy"),
            (
                suspended(Why::IdleTimeUnknown),
                Icon::Waiting,
                "Waiting: cannot tell whether you are here",
            ),
            (
                connected(State::Suspended, Some(Why::OwnerActive), 2),
                Icon::Waiting,
                "Waiting: you are using this PC, 2 jobs on hold",
            ),
            (
                LocalStatus {
                    paused: true,
                    ..connected(State::Suspended, Some(Why::PausedByOwner), 1)
                },
                Icon::Waiting,
                "Paused, 1 job on hold",
            ),
            (
                linked(Connection::Connecting { address: address() }),
                Icon::NotConnected,
                "Connecting to pool.example:7700",
            ),
            (linked(unreachable()), Icon::NotConnected, "No answer from pool.example:7700"),
            (
                linked(Connection::Refused { address: address(), error: String::new() }),
                Icon::NotConnected,
                "Refused by pool.example:7700",
            ),
        ];
        for (status, icon, headline) in table {
            let tray = Tray::for_state(&status);
            assert_eq!(tray.icon, icon, "{headline}");
            assert_eq!(tray.tooltip, format!("Lull: {headline}"));
            assert_eq!(tray.menu.entries[0], Entry::Label(headline.to_owned()));
        }
    }

    #[test]
    fn a_click_is_known_by_its_id() {
        for click in Click::ALL {
            assert_eq!(Click::from_id(click.id()), Some(click));
        }
        assert_eq!(Click::from_id("status"), None);
    }

    fn unreachable() -> Connection {
        Connection::Unreachable {
            address: "https://pool.example:7700".to_owned(),
            error: "connection refused".to_owned(),
        }
    }

    fn connected() -> LocalStatus {
        LocalStatus {
            worker_id: WorkerId::generate(),
            hostname: "desk-12".to_owned(),
            connection: Connection::Connected { address: "pool.example:7700".to_owned() },
            state: WorkerState::Ready,
            reason: None,
            slots: 2,
            running: Vec::new(),
            paused: false,
            idle_secs: None,
            others_cpu_percent: None,
            on_battery: None,
            sandbox_level: SandboxLevel::L3,
            sandbox_detail: String::new(),
            version: "0.1.0".to_owned(),
        }
    }

    fn attempt() -> LocalAttempt {
        LocalAttempt {
            job_id: JobId::generate(),
            attempt: 1,
            name: "render".to_owned(),
            command: "make".to_owned(),
            submitted_by: "ada".to_owned(),
            started_at: Timestamp::from_millis(0),
            ended_at: None,
            ending: None,
            exit_code: None,
            error_message: None,
        }
    }
}
