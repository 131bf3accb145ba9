//! What ends the program: Ctrl-C everywhere, SIGTERM on Unix, closing and shutdown on Windows.

use std::io;

use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first signal to end. Handlers are in place when this returns.
///
/// # Errors
/// When the system refuses a handler.
pub fn shutdown() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let asked = token.clone();
    let signal = first_signal()?;
    tokio::spawn(async move {
        signal.await;
        tracing::info!("shutdown asked for");
        asked.cancel();
    });
    Ok(token)
}

#[cfg(unix)]
fn first_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(windows)]
fn first_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::windows;

    let mut interrupt = windows::ctrl_c()?;
    let mut close = windows::ctrl_close()?;
    let mut shutdown = windows::ctrl_shutdown()?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = close.recv() => {}
            _ = shutdown.recv() => {}
        }
    })
}
