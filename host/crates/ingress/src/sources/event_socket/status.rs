//! The status of an event socket, for operators.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use modhost_core::sync::lock;

/// The status of an event socket since its source was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketStatus {
    /// Since when the socket has been connected without interruption; `None` if it is not connected.
    pub connected_since: Option<SystemTime>,
    /// Whether another host keeps the socket open, or is about to.
    pub elsewhere: bool,
    /// Since when the socket has been disconnected, after its first connection.
    pub gap_since: Option<SystemTime>,
    /// The number of gaps since the first connection.
    pub gaps: u64,
    /// The last gap.
    pub last_gap: Option<Gap>,
    /// The number of connections made.
    pub connections: u64,
    /// The number of events that the sink accepted, including duplicates.
    pub events: u64,
    /// The number of events not accepted: too large, unreadable, of a foreign company, or still waiting when the host
    /// stopped.
    pub refused: u64,
    /// The id of the event that waits because of backpressure; meanwhile nothing is read.
    pub waiting: Option<String>,
    /// Why the last attempt to connect failed; `None` if it succeeded.
    pub problem: Option<String>,
}

/// A time without a connection. Events of that time are lost: the platform doesn't resend them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last time at which the socket was certainly connected.
    pub from: SystemTime,
    /// The time of the next connection.
    pub to: SystemTime,
}

impl Gap {
    /// Returns the length of the gap.
    pub fn length(&self) -> Duration {
        self.to.duration_since(self.from).unwrap_or_default()
    }
}

/// The status shared with the socket's task, which updates it.
#[derive(Default)]
pub(super) struct Status(Mutex<SocketStatus>);

impl Status {
    pub(super) fn read(&self) -> SocketStatus {
        self.lock().clone()
    }

    /// Records a connection; returns the gap that it ended.
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

    /// Records that the socket is disconnected, possibly since `since`.
    pub(super) fn disconnected(&self, since: SystemTime) {
        let mut status = self.lock();
        status.connected_since = None;
        status.gap_since = Some(since);
    }

    /// Records that the socket was closed because another host keeps it open: no gap begins here.
    pub(super) fn closed(&self) {
        let mut status = self.lock();
        (status.connected_since, status.gap_since) = (None, None);
    }

    pub(super) fn set_elsewhere(&self, elsewhere: bool) {
        let mut status = self.lock();
        status.elsewhere = elsewhere;
        if elsewhere {
            status.problem = None;
        }
    }

    pub(super) fn failed(&self, problem: &str) {
        self.lock().problem = Some(problem.to_owned());
    }

    pub(super) fn accepted(&self) {
        let mut status = self.lock();
        status.events += 1;
        status.waiting = None;
    }

    pub(super) fn waiting(&self, id: &str) {
        self.lock().waiting = Some(id.to_owned());
    }

    pub(super) fn refused(&self) {
        let mut status = self.lock();
        status.refused += 1;
        status.waiting = None;
    }

    fn lock(&self) -> MutexGuard<'_, SocketStatus> {
        lock(&self.0)
    }
}
