//! A listener that its senders can't pin: every wait for a client has an end, and what one client takes is bounded.
//!
//! `axum::serve` has no time limits, and no limit of connections; this is what stands in its place, for the public
//! listener and for the operators'. What each wait may take is in [`ListenerLimits`](modhost_config::ListenerLimits);
//! all of it can be changed while connections are served.

mod body_budget;
mod client;
mod connection;
mod connection_activity;
mod connection_table;
mod routes;
mod signature_failure_limiter;
mod timed_body;
mod tls;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use body_budget::BodyBudget;
pub use client::Client;
use connection::Connection;
use connection_table::{ConnectionEntry, ConnectionTable};
use modhost_config::{ListenerLimits, Proxies};
use modhost_core::log_throttle::LogThrottle;
pub use routes::Routes;
pub use signature_failure_limiter::SignatureFailureLimiter;
pub use timed_body::BodyError;
pub use tls::load as load_certificate;

/// How long is waited after the system couldn't give a connection, say for want of file descriptors.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// How often is looked for a connection that can make room, while all of them wait for the host.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// By what rules a listener takes connections.
#[derive(Clone, Debug, Default)]
pub struct ListenerRules {
    /// What each client may use.
    pub limits: ListenerLimits,
    /// Who may say for whom a request is.
    pub proxies: Proxies,
    /// What TLS is spoken with; none: plain HTTP is.
    pub tls: Option<Arc<ServerConfig>>,
}

/// A listener: the rules it goes by now, and who is connected.
pub struct Listener {
    rules: ArcSwap<ListenerRules>,
    connections: Arc<ConnectionTable>,
    bodies: Arc<BodyBudget>,
    signature_failures: Arc<SignatureFailureLimiter>,
    lines: Lines,
}

/// The lines of its log that a flood could fill the disk with.
#[derive(Default)]
struct Lines {
    broken: LogThrottle,
    full: LogThrottle,
    one_address: LogThrottle,
    head: LogThrottle,
    plain: LogThrottle,
    handshake: LogThrottle,
}

impl Listener {
    /// A listener with these rules.
    pub fn new(rules: ListenerRules) -> Arc<Self> {
        let signature_failures = Arc::new(SignatureFailureLimiter::new(rules.limits.max_forgeries));
        Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            connections: Arc::default(),
            bodies: Arc::default(),
            signature_failures,
            lines: Lines::default(),
        })
    }

    /// Goes by other rules from now on. Connections that are open keep their time limits and their certificate; whether
    /// TLS is spoken stays as it was at first.
    pub fn set(&self, mut rules: ListenerRules) {
        let before = self.rules.load();
        rules.tls = before.tls.as_ref().map(|old| rules.tls.unwrap_or_else(|| old.clone()));
        self.signature_failures.set_limit(rules.limits.max_forgeries);
        self.rules.store(Arc::new(rules));
    }

    /// Who sent forged requests here.
    pub fn signature_failures(&self) -> Arc<SignatureFailureLimiter> {
        self.signature_failures.clone()
    }

    /// Serves connections until `closing`; then lets requests that are under way come to their end, for a few seconds.
    pub async fn serve(self: Arc<Self>, sockets: TcpListener, routes: Arc<Routes>, closing: CancellationToken) {
        let visits = TaskTracker::new();
        let door = async {
            loop {
                let (stream, peer) = self.accept(&sockets).await;
                if let Some(place) = self.admit(peer).await {
                    let rules = self.rules.load_full();
                    let visit = Connection::new(self.clone(), rules, place, closing.clone());
                    visits.spawn(visit.attend(stream, routes.clone()));
                }
            }
        };
        closing.run_until_cancelled(door).await;
        drop(sockets);
        visits.close();
        visits.wait().await;
    }

    /// Waits for the next connection.
    async fn accept(&self, sockets: &TcpListener) -> (TcpStream, IpAddr) {
        loop {
            match sockets.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot disable Nagle's algorithm");
                    }
                    return (stream, client::plain(peer));
                }
                // It was gone before it was taken; the next one has nothing to do with that.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    // No file descriptors are left, or no memory: what waits longest for its client gives up its own.
                    self.connections.make_room();
                    if let Some(more) = self.lines.broken.now() {
                        tracing::error!(%error, suppressed = more.suppressed(), "cannot accept connections; retrying");
                    }
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    /// Finds a place for a client; none if its address has too many already, and it is to be turned away.
    async fn admit(&self, address: IpAddr) -> Option<ConnectionEntry> {
        loop {
            let rules = self.rules.load();
            let group = client::group(address);
            let own = rules.limits.max_connections_per_address.filter(|_| !client::is_trusted(&rules.proxies, address));
            if own.is_some_and(|own| self.connections.of(group) >= own) {
                if let Some(more) = self.lines.one_address.now() {
                    tracing::warn!(
                        client = %address,
                        suppressed = more.suppressed(),
                        "connection refused: `max_connections_per_address` in [server.limits] is reached"
                    );
                }
                return None;
            }
            if self.connections.len() < rules.limits.max_connections {
                return Some(self.connections.enter(address, group));
            }
            drop(rules);
            if let Some(more) = self.lines.full.now() {
                tracing::warn!(
                    suppressed = more.suppressed(),
                    "`max_connections` in [server.limits] is reached: closing the connections that have been idle longest"
                );
            }
            let left = self.connections.left();
            self.connections.make_room();
            // If all have been heard and wait for their answer, the next look finds one that has it.
            let _ = tokio::time::timeout(LOOK_EVERY, left).await;
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
