//! A sandbox that plays by a test's script, without processes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lull_shared::workers::SandboxLevel;
use tokio::{io::AsyncWriteExt as _, sync::watch};

use crate::sandbox::{Exit, Launch, Program, Sandbox, SandboxError, SandboxProcess, Started};

/// What happened to a job in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Started,
    Suspended,
    Resumed,
    Killed,
}

/// A sandbox without processes. A command is `say TEXT`, `exit CODE`, `make FILE`, `stay` (until killed or told) or
/// `panic`, one a line.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeSandbox {
    seen: Arc<Mutex<Vec<Seen>>>,
    leave: Arc<watch::Sender<bool>>,
    pub(crate) launches: Arc<Mutex<Vec<Launch>>>,
}

impl FakeSandbox {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Lets every `stay` end.
    pub(crate) fn let_go(&self) {
        self.leave.send_replace(true);
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
    }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn level(&self) -> SandboxLevel {
        SandboxLevel::L2
    }

    fn detail(&self) -> &'static str {
        "a play"
    }

    async fn start(&self, launch: &Launch) -> Result<Started, SandboxError> {
        self.note(Seen::Started);
        self.launches.lock().unwrap().push(launch.clone());
        let (stdout, mut out) = tokio::io::duplex(64 * 1024);
        let (stderr, _) = tokio::io::duplex(64);
        let lines = match &launch.program {
            Program::Lines { lines, .. } => lines.clone(),
            Program::Argv(argv) => vec![argv.join(" ")],
        };
        let mut leave = self.leave.subscribe();
        let folder = launch.folder.clone();
        let (exit, exited) = watch::channel(None);
        let play = tokio::spawn(async move {
            let mut code = 0;
            for line in &lines {
                match line.split_once(' ') {
                    Some(("say", text)) => out.write_all(text.as_bytes()).await.unwrap(),
                    Some(("exit", number)) => code = number.parse().unwrap(),
                    Some(("flood", bytes)) => {
                        out.write_all(&vec![b'x'; bytes.parse().unwrap()]).await.unwrap();
                    }
                    Some(("make", name)) => std::fs::write(folder.join(name), "made").unwrap(),
                    _ if line == "stay" => drop(leave.wait_for(|leave| *leave).await),
                    _ => panic!("the play has no {line:?}"),
                }
            }
            drop(out);
            exit.send_replace(Some(Exit { line: 1, code }));
        });
        let process = FakeProcess { sandbox: self.clone(), play, exited };
        Ok(Started {
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            process: Box::new(process),
        })
    }
}

struct FakeProcess {
    sandbox: FakeSandbox,
    play: tokio::task::JoinHandle<()>,
    exited: watch::Receiver<Option<Exit>>,
}

#[async_trait]
impl SandboxProcess for FakeProcess {
    async fn wait(&mut self) -> Result<Exit, SandboxError> {
        match self.exited.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => Ok(exit),
            Ok(None) | Err(_) => panic!("the play broke off"),
        }
    }

    async fn suspend(&mut self) -> Result<(), SandboxError> {
        self.sandbox.note(Seen::Suspended);
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), SandboxError> {
        self.sandbox.note(Seen::Resumed);
        Ok(())
    }

    async fn kill(&mut self) -> Result<(), SandboxError> {
        self.sandbox.note(Seen::Killed);
        self.play.abort();
        Ok(())
    }
}
