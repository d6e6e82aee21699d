//! Publishes failed attempts to subscribers: `modhost dev` shows each one next to its event.

use std::sync::Arc;

use tokio::sync::broadcast;

use modhost_core::event::{DeliveryId, Event, Name};
use modhost_storage::journal::LogLine;

/// Maximum number of unread failures per subscriber; older ones are dropped.
const CHANNEL_CAPACITY: usize = 64;

/// An attempt that failed.
#[derive(Debug)]
pub struct FailedAttempt {
    /// The event.
    pub event: Arc<Event>,
    /// The module.
    pub module: Name,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// Whether a retry follows.
    pub will_retry: bool,
    /// The reason.
    pub reason: String,
    /// The lines that the module logged.
    pub log: Vec<LogLine>,
}

/// Broadcasts failed attempts.
pub(super) struct Failures(broadcast::Sender<Arc<FailedAttempt>>);

impl Default for Failures {
    fn default() -> Self {
        Self(broadcast::Sender::new(CHANNEL_CAPACITY))
    }
}

impl Failures {
    /// Subscribes to the failures from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<FailedAttempt>> {
        self.0.subscribe()
    }

    /// Sends a failure; `make` is called only if there are subscribers.
    pub fn report(&self, make: impl FnOnce() -> FailedAttempt) {
        if self.0.receiver_count() > 0 {
            // The last subscriber may just have been dropped.
            drop(self.0.send(Arc::new(make())));
        }
    }
}
