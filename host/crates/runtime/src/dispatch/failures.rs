//! Attempts that failed, for whoever watches: `modhost dev` shows each beside its event.

use std::sync::Arc;

use tokio::sync::broadcast;

use modhost_core::event::{DeliveryId, Event, Name};
use modhost_storage::journal::LogLine;

/// How many failures a watcher may be behind; older ones it misses.
const BEHIND: usize = 64;

/// An attempt that failed.
#[derive(Debug)]
pub struct FailedAttempt {
    /// The event.
    pub event: Arc<Event>,
    /// The module.
    pub module: Name,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// Whether there will be another.
    pub again: bool,
    /// Why it failed.
    pub reason: String,
    /// What the module logged.
    pub log: Vec<LogLine>,
}

/// Tells of failures.
pub(super) struct Failures(broadcast::Sender<Arc<FailedAttempt>>);

impl Default for Failures {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Failures {
    /// Those from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<FailedAttempt>> {
        self.0.subscribe()
    }

    /// Tells of one; it is made only if somebody watches.
    pub fn tell(&self, make: impl FnOnce() -> FailedAttempt) {
        if self.0.receiver_count() > 0 {
            // Who watched a moment ago may be gone.
            drop(self.0.send(Arc::new(make())));
        }
    }
}
