//! What the system tells a running host: to stop, to stop at once, or to read its settings again.

use std::io;
#[cfg(unix)]
use std::io::IsTerminal;

/// Waits until someone wants a command to stop that is no host: Ctrl-C, or SIGTERM.
pub(super) async fn stop_requested() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// The signals a host listens to, from when this is made.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    /// Whether somebody sits before it.
    #[cfg(unix)]
    had_terminal: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            hangup: signal(SignalKind::hangup())?,
            #[cfg(unix)]
            had_terminal: io::stdin().is_terminal(),
        })
    }

    /// Waits until someone wants the process to stop: Ctrl-C, or SIGTERM as service managers send it. Whenever SIGHUP comes
    /// meanwhile, `reload` is called; but where that comes because the terminal was closed, it means to stop.
    #[cfg(unix)]
    pub(super) async fn stop_requested(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if self.had_terminal && !io::stdin().is_terminal() {
                        tracing::info!("the terminal was closed");
                        return;
                    }
                    reload();
                }
            }
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn stop_requested(&mut self, _reload: impl Fn()) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    /// Shuts down; when someone wants the process to stop once more meanwhile, it ends at once. What ran then starts again with
    /// the next host, as after a crash.
    pub(super) async fn unless_told_again(mut self, shutdown: impl Future<Output = ()>) {
        let signal = tokio::select! {
            () = shutdown => return,
            signal = self.second() => signal,
        };
        tracing::warn!("ending at once, as asked twice: deliveries that ran start again with the host");
        modhost_server::telemetry::flush();
        // As shells tell of who was ended by a signal.
        std::process::exit(128 + signal)
    }

    /// The next signal to stop.
    #[cfg(unix)]
    async fn second(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => rustix::process::Signal::TERM.as_raw(),
            _ = self.interrupt.recv() => rustix::process::Signal::INT.as_raw(),
        }
    }

    #[cfg(not(unix))]
    async fn second(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            Err(_) => std::future::pending().await,
        }
    }
}
