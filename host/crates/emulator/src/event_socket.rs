//! `GET /public/event-socket/events/stream`: the event socket that Unique's Python toolkit uses.
//!
//! As on the real platform, a connection closes after ten minutes without notice, events are not resent, and events
//! without data are sent as keep-alives.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::LocalState;
use super::credentials;
use super::error::{ApiError, Params};
use modhost_core::sync::lock;

/// Maximum number of events queued for a subscriber that doesn't read.
const MAX_WAITING: usize = 1000;

/// Interval of keep-alives while no events are sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The subscribers and their subscriptions.
pub struct Subscribers {
    connected: Mutex<Vec<Subscriber>>,
    /// The age at which a connection is closed.
    lifetime: Duration,
    stop: CancellationToken,
}

struct Subscriber {
    names: BTreeSet<String>,
    events: mpsc::Sender<String>,
}

/// The query of a subscriber.
#[derive(Deserialize)]
pub struct SubscriptionQuery {
    /// Event names, separated by commas.
    subscriptions: Option<String>,
}

impl Subscribers {
    /// Creates an empty set. Connections close at the age `lifetime` or when `stop` is canceled.
    pub fn new(lifetime: Duration, stop: CancellationToken) -> Self {
        Self { connected: Mutex::default(), lifetime, stop }
    }

    /// Sends an event to its subscribers; returns their number.
    pub fn send(&self, name: &str, body: &str) -> usize {
        let mut connected = self.connected();
        let mut sent = 0;
        connected.retain(|subscriber| {
            if !subscriber.names.contains(name) {
                return !subscriber.events.is_closed();
            }
            // A subscriber with a full queue is disconnected: events are not resent.
            let is_sent = subscriber.events.try_send(body.to_owned()).is_ok();
            sent += usize::from(is_sent);
            is_sent
        });
        sent
    }

    fn subscribe(&self, names: BTreeSet<String>) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        let (events, receiver) = mpsc::channel(MAX_WAITING);
        self.connected().push(Subscriber { names, events });
        let (stop, lifetime) = (self.stop.clone(), self.lifetime);
        let end = async move { stop.run_until_cancelled(tokio::time::sleep(lifetime)).await };
        let events = stream::unfold(receiver, async |mut receiver| {
            let body = receiver.recv().await?;
            Some((Ok(Event::default().data(body)), receiver))
        });
        events.take_until(Box::pin(end))
    }

    fn connected(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        lock(&self.connected)
    }
}

/// Streams events as they happen.
pub async fn stream(
    State(state): State<Arc<LocalState>>,
    headers: HeaderMap,
    Params(wanted): Params<SubscriptionQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    credentials::authenticate(&state, &headers, false)?;
    let names = wanted.subscriptions.as_deref().unwrap_or_default().split(',').map(str::trim);
    let names: BTreeSet<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        let wrong = "`subscriptions` is missing: list event names, separated by commas";
        return Err(ApiError::invalid(wrong));
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).event(Event::default().data(""));
    Ok(Sse::new(state.deliverer.subscribers().subscribe(names)).keep_alive(keep_alive))
}
