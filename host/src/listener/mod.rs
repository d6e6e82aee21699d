//! A listener that its senders can't pin: every wait for a client has an end, and what one client takes is bounded.
//!
//! `axum::serve` has no time limits, and no limit of connections; this is what stands in its place, for the public
//! listener and for the operators'. What each wait may take is in [`ListenerLimits`](crate::config::ListenerLimits);
//! all of it can be changed while connections are served.

mod arriving;
mod bodies;
mod client;
mod connection;
mod crowd;
mod pulse;
mod refusals;
mod routes;
mod seldom;
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

use crate::config::{ListenerLimits, Proxies};
pub use arriving::CutShort;
use bodies::Bodies;
pub use client::Client;
use connection::Visit;
use crowd::{Crowd, Place};
pub use refusals::Refusals;
pub use routes::Routes;
pub(crate) use seldom::Seldom;
pub use tls::load as load_certificate;

/// How long is waited after the system couldn't give a connection, say for want of file descriptors.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// How often is looked for a connection that can make room, while all of them wait for the host.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// By what rules a listener takes connections.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What each client may use.
    pub limits: ListenerLimits,
    /// Who may say for whom a request is.
    pub proxies: Proxies,
    /// What TLS is spoken with; none: plain HTTP is.
    pub tls: Option<Arc<ServerConfig>>,
}

/// A listener: the rules it goes by now, and who is connected.
pub struct Listener {
    rules: ArcSwap<Rules>,
    crowd: Arc<Crowd>,
    bodies: Arc<Bodies>,
    refusals: Arc<Refusals>,
    lines: Lines,
}

/// The lines of its log that a flood could fill the disk with.
#[derive(Default)]
struct Lines {
    broken: Seldom,
    full: Seldom,
    one_address: Seldom,
    head: Seldom,
    plain: Seldom,
    handshake: Seldom,
}

impl Listener {
    /// A listener with these rules.
    pub fn new(rules: Rules) -> Arc<Self> {
        let refusals = Arc::new(Refusals::new(rules.limits.max_forgeries));
        Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            crowd: Arc::default(),
            bodies: Arc::default(),
            refusals,
            lines: Lines::default(),
        })
    }

    /// Goes by other rules from now on. Connections that are open keep their time limits and their certificate; whether
    /// TLS is spoken stays as it was at first.
    pub fn set(&self, mut rules: Rules) {
        let before = self.rules.load();
        rules.tls = before.tls.as_ref().map(|old| rules.tls.unwrap_or_else(|| old.clone()));
        self.refusals.set_limit(rules.limits.max_forgeries);
        self.rules.store(Arc::new(rules));
    }

    /// Who sent forgeries here.
    pub fn refusals(&self) -> Arc<Refusals> {
        self.refusals.clone()
    }

    /// Serves connections until `closing`; then lets requests that are under way come to their end, for a few seconds.
    pub async fn serve(self: Arc<Self>, sockets: TcpListener, routes: Arc<Routes>, closing: CancellationToken) {
        let visits = TaskTracker::new();
        let door = async {
            loop {
                let (stream, peer) = self.accept(&sockets).await;
                if let Some(place) = self.admit(peer).await {
                    let rules = self.rules.load_full();
                    let visit = Visit::new(self.clone(), rules, place, closing.clone());
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
                        tracing::debug!("answers may be slow: {error}");
                    }
                    return (stream, client::plain(peer));
                }
                // It was gone before it was taken; the next one has nothing to do with that.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    // No file descriptors are left, or no memory: what waits longest for its client gives up its own.
                    self.crowd.make_room();
                    if let Some(more) = self.lines.broken.now() {
                        tracing::error!("connections can't be accepted, trying on: {error}{more}");
                    }
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    /// Finds a place for a client; none if its address has too many already, and it is to be turned away.
    async fn admit(&self, address: IpAddr) -> Option<Place> {
        loop {
            let rules = self.rules.load();
            let group = client::group(address);
            let own = rules.limits.max_connections_per_address.filter(|_| !client::is_trusted(&rules.proxies, address));
            if own.is_some_and(|own| self.crowd.of(group) >= own) {
                if let Some(more) = self.lines.one_address.now() {
                    tracing::warn!(
                        client = %address,
                        "a connection is closed at once: its address has as many as `max_connections_per_address` in \
                         [server.limits] allows{more}"
                    );
                }
                return None;
            }
            if self.crowd.len() < rules.limits.max_connections {
                return Some(self.crowd.enter(address, group));
            }
            drop(rules);
            if let Some(more) = self.lines.full.now() {
                tracing::warn!(
                    "there are as many connections as `max_connections` in [server.limits] allows: those who keep the \
                     host waiting longest make room{more}"
                );
            }
            let left = self.crowd.left();
            self.crowd.make_room();
            // If all have been heard and wait for their answer, the next look finds one that has it.
            let _ = tokio::time::timeout(LOOK_EVERY, left).await;
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
