//! The boundary between event sources and dispatch: a source hands each verified event to a [`Sink`].

use std::time::Duration;

use crate::unreadable::Unreadable;
use modhost_core::event::Event;

/// The receiver of verified events.
pub trait Sink: Send + Sync + 'static {
    /// Accepts an event. When this returns [`SinkOutcome::Recorded`], the event is durable.
    ///
    /// # Errors
    ///
    /// If the host cannot accept the event now; the sender must send it again.
    fn accept(&self, event: Event) -> impl Future<Output = Result<SinkOutcome, Backpressure>> + Send;

    /// Keeps a verified request that cannot be parsed as an event, so that operators can inspect it.
    ///
    /// # Errors
    ///
    /// If the host cannot keep the request now; the sender must send it again.
    fn keep_unreadable(&self, unreadable: Unreadable) -> impl Future<Output = Result<(), Backpressure>> + Send;
}

/// The result of accepting an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkOutcome {
    /// The event and its deliveries are on disk, recorded by this request or an earlier one.
    Recorded,
    /// No module subscribes to the event.
    NoSubscriber,
}

/// A refusal to accept an event now; the sender should retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backpressure {
    /// How long the sender should wait before it retries.
    pub after: Duration,
    /// Whether the sender exceeds its event rate; otherwise the host is overloaded.
    pub too_fast: bool,
}
