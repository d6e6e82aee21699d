//! `GET /public/event-socket/events/stream`: events for those who fetch them, as Unique's Python toolkit does.
//!
//! As on the real platform a connection is closed without a word after ten minutes, nothing is sent again, and now and
//! then comes an event without data.

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

/// How many events may wait for a subscriber that doesn't read.
const MAX_WAITING: usize = 1000;

/// How often an event without data is sent where nothing else is.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Who listens, and to what.
pub struct Subscribers {
    connected: Mutex<Vec<Subscriber>>,
    /// How old a connection gets.
    lifetime: Duration,
    stop: CancellationToken,
}

struct Subscriber {
    names: BTreeSet<String>,
    events: mpsc::Sender<String>,
}

/// What a subscriber asks for.
#[derive(Deserialize)]
pub struct SubscriptionQuery {
    /// The names of events, with commas between them.
    subscriptions: Option<String>,
}

impl Subscribers {
    /// Nobody yet; connections get this old, and none outlives `stop`.
    pub fn new(lifetime: Duration, stop: CancellationToken) -> Self {
        Self { connected: Mutex::default(), lifetime, stop }
    }

    /// Sends an event to those who want it; answers with how many they are.
    pub fn send(&self, name: &str, body: &str) -> usize {
        let mut connected = self.connected();
        let mut sent = 0;
        connected.retain(|subscriber| {
            if !subscriber.names.contains(name) {
                return !subscriber.events.is_closed();
            }
            // Who doesn't read for so long is cut off: nothing is sent again.
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

/// Sends events as they happen.
pub async fn stream(
    State(state): State<Arc<LocalState>>,
    headers: HeaderMap,
    Params(wanted): Params<SubscriptionQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    credentials::authenticate(&headers, false)?;
    let names = wanted.subscriptions.as_deref().unwrap_or_default().split(',').map(str::trim);
    let names: BTreeSet<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        let wrong = "`subscriptions` is missing: name events, with commas between them";
        return Err(ApiError::invalid(wrong));
    }
    let sign_of_life = KeepAlive::new().interval(SIGN_OF_LIFE).event(Event::default().data(""));
    Ok(Sse::new(state.deliverer.subscribers().subscribe(names)).keep_alive(sign_of_life))
}
