//! The one thread that starts processes.
//!
//! On Linux a job dies with the *thread* that started it, so that thread has to live as long as the program; the
//! runtime's own threads may come and go.

use std::{io, sync::mpsc, thread};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

type Order = (Handle, Command, oneshot::Sender<io::Result<Child>>);

/// Starts a process from the thread that lives as long as the program.
pub(super) async fn spawn(command: Command) -> io::Result<Child> {
    let (reply, started) = oneshot::channel();
    orders()?
        .send((Handle::current(), command, reply))
        .map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    started.await.map_err(|_| io::Error::other("the thread that starts processes is gone"))?
}

fn orders() -> io::Result<mpsc::Sender<Order>> {
    use std::sync::{Mutex, PoisonError};
    static ORDERS: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);

    let mut orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = orders.as_ref() {
        return Ok(orders.clone());
    }
    let (sender, receiver) = mpsc::channel::<Order>();
    thread::Builder::new().name("lull-spawn".to_owned()).spawn(move || {
        for (runtime, mut command, reply) in receiver {
            let _entered = runtime.enter();
            // A start that nobody waits for any more must not run on: dropping the child kills it.
            let _ = reply.send(command.kill_on_drop(true).spawn());
        }
    })?;
    Ok(orders.insert(sender).clone())
}
