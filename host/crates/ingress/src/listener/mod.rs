//! The HTTP listener. Every wait for a client has a time limit, and the resources of each client are bounded.
//!
//! `axum::serve` has neither time limits nor a connection limit; this module replaces it for the public listener and
//! the operators' listener. [`ListenerLimits`](modhost_config::ListenerLimits) holds the limits. They can change while
//! connections are open.

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

/// Delay before accepting again after a failed `accept`, for example because no file descriptors are left.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Interval of the search for a connection to close while the host owes a response on all of them.
const SEARCH_INTERVAL: Duration = Duration::from_millis(20);

/// The rules of a listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerRules {
    /// Time and size limits.
    pub limits: ListenerLimits,
    /// The proxies whose forwarding headers are trusted.
    pub proxies: Proxies,
    /// The TLS configuration; `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
}

/// A listener with its current rules and its open connections.
pub struct Listener {
    rules: ArcSwap<ListenerRules>,
    connections: Arc<ConnectionTable>,
    bodies: Arc<BodyBudget>,
    signature_failures: Arc<SignatureFailureLimiter>,
    log_throttles: LogThrottles,
}

/// Throttles for the log lines that a flood of requests could fill the disk with.
#[derive(Default)]
struct LogThrottles {
    broken: LogThrottle,
    full: LogThrottle,
    one_address: LogThrottle,
    head: LogThrottle,
    plain: LogThrottle,
    handshake: LogThrottle,
}

impl Listener {
    /// Creates a listener with these rules.
    pub fn new(rules: ListenerRules) -> Arc<Self> {
        let signature_failures = Arc::new(SignatureFailureLimiter::new(rules.limits.max_forgeries));
        Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            connections: Arc::default(),
            bodies: Arc::default(),
            signature_failures,
            log_throttles: LogThrottles::default(),
        })
    }

    /// Replaces the rules. Open connections keep their time limits and their certificate. A listener that started with
    /// TLS stays with TLS, and one that started without stays without.
    pub fn set(&self, mut rules: ListenerRules) {
        let before = self.rules.load();
        rules.tls = before.tls.as_ref().map(|old| rules.tls.unwrap_or_else(|| old.clone()));
        self.signature_failures.set_limit(rules.limits.max_forgeries);
        self.rules.store(Arc::new(rules));
    }

    /// Returns the counters of invalid signatures by client.
    pub fn signature_failures(&self) -> Arc<SignatureFailureLimiter> {
        self.signature_failures.clone()
    }

    /// Serves connections until `closing` is canceled; then gives requests in flight a few seconds to finish.
    pub async fn serve(self: Arc<Self>, sockets: TcpListener, routes: Arc<Routes>, closing: CancellationToken) {
        let connections = TaskTracker::new();
        let accept_loop = async {
            loop {
                let (stream, peer) = self.accept(&sockets).await;
                if let Some(entry) = self.admit(peer).await {
                    let rules = self.rules.load_full();
                    let connection = Connection::new(self.clone(), rules, entry, closing.clone());
                    connections.spawn(connection.serve(stream, routes.clone()));
                }
            }
        };
        closing.run_until_cancelled(accept_loop).await;
        drop(sockets);
        connections.close();
        connections.wait().await;
    }

    /// Accepts the next connection, retrying after errors.
    async fn accept(&self, sockets: &TcpListener) -> (TcpStream, IpAddr) {
        loop {
            match sockets.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot disable Nagle's algorithm");
                    }
                    return (stream, client::plain(peer));
                }
                // The client disconnected before the connection was accepted; later connections are not affected.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    // The process is out of file descriptors or memory: close the connection that has waited longest
                    // for its client.
                    self.connections.close_one();
                    if let Some(more) = self.log_throttles.broken.now() {
                        tracing::error!(%error, suppressed = more.suppressed(), "cannot accept connections; retrying");
                    }
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    /// Returns an entry in the connection table, waiting for one if the table is full. Returns `None` if the client's
    /// address has too many connections already; the connection is then closed.
    async fn admit(&self, address: IpAddr) -> Option<ConnectionEntry> {
        loop {
            let rules = self.rules.load();
            let group = client::group(address);
            let own = rules.limits.max_connections_per_address.filter(|_| !client::is_trusted(&rules.proxies, address));
            if own.is_some_and(|own| self.connections.count_for(group) >= own) {
                if let Some(more) = self.log_throttles.one_address.now() {
                    tracing::warn!(
                        client = %address,
                        suppressed = more.suppressed(),
                        "connection refused: `max_connections_per_address` in [server.limits] is reached"
                    );
                }
                return None;
            }
            if self.connections.len() < rules.limits.max_connections {
                return Some(self.connections.add(address, group));
            }
            drop(rules);
            if let Some(more) = self.log_throttles.full.now() {
                tracing::warn!(
                    suppressed = more.suppressed(),
                    "`max_connections` in [server.limits] is reached: closing the connections that have been idle longest"
                );
            }
            let closed = self.connections.closed();
            self.connections.close_one();
            // If the host owes a response on every connection, a later iteration finds one whose response was sent.
            let _ = tokio::time::timeout(SEARCH_INTERVAL, closed).await;
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
