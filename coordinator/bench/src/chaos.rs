//! A network that misbehaves: a TCP proxy that delays what passes, cuts connections, and swallows replies after the
//! request went through.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::{JoinHandle, JoinSet},
};

/// How often things go wrong, each for one piece of data that passes, in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// The piece comes up to 200 ms late.
    pub delays: u32,
    /// The connection is cut before a request's piece went through.
    pub cuts: u32,
    /// The connection is cut when its reply is on the way back: what was asked for has been done.
    pub lost_replies: u32,
}

/// Passes connections on to one address for as long as it lives.
#[derive(Debug)]
pub struct ChaosProxy {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl ChaosProxy {
    /// Listens on a free port and passes every connection on to `target`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr, trouble: Trouble, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let chance = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                connections.spawn(pass_on(stream, target, trouble, Arc::clone(&chance)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for ChaosProxy {
    /// Cuts every connection: the task owns them.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes both directions of one connection until one of them ends or is cut, which ends the other.
async fn pass_on(
    client: TcpStream,
    target: SocketAddr,
    trouble: Trouble,
    chance: Arc<Mutex<fastrand::Rng>>,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // A reply that is held back for the system's own reasons is no trouble of ours.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (cuts, lost) = (trouble.cuts, trouble.lost_replies);
    tokio::select! {
        () = copy(client_read, server_write, cuts, trouble.delays, &chance) => {}
        () = copy(server_read, client_write, lost, trouble.delays, &chance) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cuts: u32,
    delays: u32,
    chance: &Mutex<fastrand::Rng>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let (cut, delay) = {
            let mut chance = chance.lock().await;
            let late = chance.u32(..1000) < delays;
            (chance.u32(..1000) < cuts, late.then(|| chance.u64(1..200)))
        };
        if let Some(delay) = delay {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if cut || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
