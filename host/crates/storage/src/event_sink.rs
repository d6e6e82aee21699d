//! The boundary between event sources and dispatch: a source hands each verified event to a [`Sink`].

use std::time::Duration;

use crate::unreadable::Unreadable;
use modhost_core::event::Event;

/// The receiver of verified events.
pub trait Sink: Send + Sync + 'static {
    /// Takes an event. When this returns `Ok`, the event is safe.
    ///
    /// # Errors
    ///
    /// When the host cannot take the event now: the sender must send it again.
    fn take(&self, event: Event) -> impl Future<Output = Result<Taken, Backpressure>> + Send;

    /// Keeps a verified request that cannot be read as an event, for operators.
    ///
    /// # Errors
    ///
    /// When the host cannot keep the request now: the sender must send it again.
    fn keep(&self, unreadable: Unreadable) -> impl Future<Output = Result<(), Backpressure>> + Send;
}

/// The result of taking an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The event is on disk with its deliveries, because of this request or an earlier one.
    Recorded,
    /// No module wants the event.
    NoSubscriber,
}

/// The host cannot take an event now; the sender should send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backpressure {
    /// When to send it again.
    pub after: Duration,
    /// Whether the sender is too fast; otherwise the host has too much to do.
    pub too_fast: bool,
}
