//! Signals: stop, stop immediately, and reload the settings.

use std::io;
#[cfg(unix)]
use std::io::IsTerminal;

/// Waits for Ctrl-C or SIGTERM, for commands that run no host.
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

/// Handlers for the signals of a host, installed when this is created.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    /// Whether standard input was a terminal at the start.
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

    /// Waits for Ctrl-C or SIGTERM. Calls `reload` on each SIGHUP, unless the signal was sent because the terminal was closed:
    /// then the process stops.
    #[cfg(unix)]
    pub(super) async fn stop_requested(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if self.had_terminal && !io::stdin().is_terminal() {
                        tracing::info!("terminal closed");
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

    /// Shuts down. A second stop signal ends the process immediately; interrupted deliveries restart with the next host, as
    /// after a crash.
    pub(super) async fn shut_down_or_exit(mut self, shutdown: impl Future<Output = ()>) {
        let signal = tokio::select! {
            () = shutdown => return,
            signal = self.next_stop_signal() => signal,
        };
        tracing::warn!("second stop signal, exiting immediately; interrupted deliveries restart with the host");
        modhost_server::telemetry::flush();
        // The exit code that shells use for a process that a signal ended.
        std::process::exit(128 + signal)
    }

    /// Waits for the next stop signal and returns its number.
    #[cfg(unix)]
    async fn next_stop_signal(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => rustix::process::Signal::TERM.as_raw(),
            _ = self.interrupt.recv() => rustix::process::Signal::INT.as_raw(),
        }
    }

    #[cfg(not(unix))]
    async fn next_stop_signal(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            Err(_) => std::future::pending().await,
        }
    }
}
