//! How an event socket fares, for operators.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use modhost_core::sync::lock;

/// What is known of an event socket since its source was taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketStatus {
    /// Since when there has been a connection at any time; none: there is none now.
    pub connected_since: Option<SystemTime>,
    /// Since when there has been none, after there was one.
    pub gap_since: Option<SystemTime>,
    /// How many times there was none, since the first one.
    pub gaps: u64,
    /// The last time there was none.
    pub last_gap: Option<Gap>,
    /// How many connections were made.
    pub connections: u64,
    /// How many events were handed on, those that came twice included.
    pub events: u64,
    /// How many events were not: too large, none that can be read, of a foreign company, or not taken when the host
    /// stopped.
    pub refused: u64,
    /// The id of the event that waits because the host can't take it now; nothing is read meanwhile.
    pub held: Option<String>,
    /// Why the last try to connect failed; none: it didn't.
    pub problem: Option<String>,
}

/// A time without a connection: what happened on the platform then has not come, and doesn't come any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last time at which there certainly was one.
    pub from: SystemTime,
    /// When there was one again.
    pub to: SystemTime,
}

impl Gap {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.to.duration_since(self.from).unwrap_or_default()
    }
}

/// The status, as the socket's task writes it.
#[derive(Default)]
pub(super) struct Status(Mutex<SocketStatus>);

impl Status {
    pub(super) fn read(&self) -> SocketStatus {
        self.lock().clone()
    }

    /// A connection was made; answers with the gap that has ended by it.
    pub(super) fn connected(&self, now: SystemTime) -> Option<Gap> {
        let mut status = self.lock();
        status.connections += 1;
        status.problem = None;
        if status.connected_since.is_none() {
            status.connected_since = Some(now);
        }
        let gap = status.gap_since.take().map(|from| Gap { from, to: now });
        if gap.is_some() {
            status.gaps += 1;
            status.last_gap = gap;
        }
        gap
    }

    /// There is no connection any more, and perhaps there was none from that time on.
    pub(super) fn disconnected(&self, since: SystemTime) {
        let mut status = self.lock();
        status.connected_since = None;
        status.gap_since = Some(since);
    }

    pub(super) fn failed(&self, problem: &str) {
        self.lock().problem = Some(problem.to_owned());
    }

    pub(super) fn taken(&self) {
        let mut status = self.lock();
        status.events += 1;
        status.held = None;
    }

    pub(super) fn held(&self, id: &str) {
        self.lock().held = Some(id.to_owned());
    }

    pub(super) fn refused(&self) {
        let mut status = self.lock();
        status.refused += 1;
        status.held = None;
    }

    fn lock(&self) -> MutexGuard<'_, SocketStatus> {
        lock(&self.0)
    }
}
