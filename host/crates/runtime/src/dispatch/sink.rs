//! The sink of the event sources: passes events to the dispatcher and unreadable requests to their store, and counts
//! the events.

use std::time::{Duration, SystemTime};

use super::{Accepted, Dispatcher, Refused};
use modhost_core::event::{Event, Name};
use modhost_core::metrics::{self, EventOutcome};
use modhost_storage::event_sink::{Backpressure, Sink, SinkOutcome};
use modhost_storage::unreadable::{Unreadable, UnreadableStore};

/// The `Retry-After` of an unreadable request that could not be stored.
const UNREADABLE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Passes events from the sources to the dispatcher, and unreadable requests to their store. Cheap to clone.
#[derive(Clone)]
pub struct DispatchSink {
    dispatcher: Dispatcher,
    unreadable: UnreadableStore,
}

impl DispatchSink {
    /// Returns a sink in front of a dispatcher and the store of unreadable requests.
    pub fn new(dispatcher: Dispatcher, unreadable: UnreadableStore) -> Self {
        Self { dispatcher, unreadable }
    }
}

impl Sink for DispatchSink {
    async fn accept(&self, event: Event) -> Result<SinkOutcome, Backpressure> {
        let observed = Observed::of(&event);
        // The dispatcher finishes, and `report` counts the event, even if the client disconnects.
        let accepted = self.dispatcher.accept_then(event, move |accepted| observed.report(accepted)).await;
        let accepted = accepted.map_err(|refused| Backpressure {
            after: refused.retry_after(),
            too_fast: matches!(refused, Refused::RateLimited { .. }),
        })?;
        Ok(match accepted {
            Accepted::Deliveries(deliveries) if deliveries.is_empty() => SinkOutcome::NoSubscriber,
            Accepted::Deliveries(_) | Accepted::Duplicate => SinkOutcome::Recorded,
        })
    }

    async fn keep_unreadable(&self, unreadable: Unreadable) -> Result<(), Backpressure> {
        let source = unreadable.source.clone();
        self.unreadable.keep(unreadable, SystemTime::now()).await.map_err(|error| {
            tracing::error!(%source, %error, "cannot keep an unreadable request");
            Backpressure { after: UNREADABLE_RETRY_AFTER, too_fast: false }
        })
    }
}

/// The parts of an event that the log and the metrics name.
struct Observed {
    id: String,
    name: String,
    source: Name,
    tenant: Name,
    /// The module that the event names.
    module: Option<String>,
    /// Why the payload cannot be read, if it has an unknown shape.
    flaw: Option<String>,
}

impl Observed {
    fn of(event: &Event) -> Self {
        Self {
            id: event.id.clone(),
            name: event.name.clone(),
            source: event.source.clone(),
            tenant: event.tenant.clone(),
            module: event.module().map(str::to_owned),
            flaw: event.parse_error().map(str::to_owned),
        }
    }

    /// Logs and counts the result.
    fn report(self, accepted: &Result<Accepted, Refused>) {
        let Self { id, name, source, tenant, module, flaw } = self;
        // Not logged when the event is parsed, because a recorded event is parsed again for every attempt.
        if let (Some(flaw), Ok(Accepted::Deliveries(_))) = (flaw, accepted) {
            tracing::warn!(event = id, name, flaw, "the payload has an unknown shape");
        }
        let outcome = match accepted {
            Ok(Accepted::Duplicate) => {
                tracing::info!(event = id, "duplicate event");
                EventOutcome::Duplicate
            }
            Ok(Accepted::Deliveries(deliveries)) if deliveries.is_empty() => {
                match module {
                    Some(module) => {
                        tracing::info!(event = id, name, module, "no such module wants the event")
                    }
                    None => tracing::debug!(event = id, name, "no module wants the event"),
                }
                EventOutcome::Unwanted
            }
            Ok(Accepted::Deliveries(deliveries)) => {
                tracing::debug!(event = id, name, deliveries = deliveries.len(), "event accepted");
                EventOutcome::Recorded
            }
            Err(refused) => {
                tracing::warn!(event = id, reason = %refused, "event refused for now");
                EventOutcome::Deferred
            }
        };
        metrics::event(&source, &tenant, outcome);
    }
}
