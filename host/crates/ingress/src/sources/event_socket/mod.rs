//! The event socket of Unique AI: a source that fetches events, for hosts that no webhook can reach.
//!
//! The host keeps a connection to `/public/event-socket/events/stream` open and reads server-sent events from it, as
//! Unique's Python toolkit does in its `dev_util.py` (`unique-toolkit` 2026.44.2, on PyPI). Events are not signed: TLS
//! authenticates the platform to the host, and the app's key authenticates the host. The platform closes each
//! connection after ten minutes without notice and never resends an event. So the host opens the next connection before
//! that and reads both for a while; events that arrive on both are deduplicated by their id. Times without a connection
//! are recorded and logged.

mod connection;
mod socket;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::Reader;
use modhost_core::event::Name;
use modhost_core::secret::Secret;
use modhost_core::sync::lock;
use modhost_storage::event_sink::Sink;
use socket::Socket;
use status::Status;
pub use status::{Gap, SocketStatus};

/// The path of the stream on the API's host, from the toolkit.
const PATH: &str = "/public/event-socket/events/stream";

/// The API version, from the toolkit.
const API_VERSION: HeaderValue = HeaderValue::from_static("2023-12-06");

/// How long the host processes events already received when it stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells whether this host may keep an event socket open, for as long as the receiver exists: of the hosts that share a
/// storage, one at a time does, because the platform sends an event to every connection.
pub type Permit = watch::Receiver<bool>;

/// The event sockets of this host, each kept open by its own task.
///
/// The set can be replaced while the sockets run.
pub struct EventSockets {
    /// Returns the permit of a source.
    permits: Box<dyn Fn(&Name) -> Permit + Send + Sync>,
    running: Mutex<BTreeMap<Name, Running>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Running {
    settings: watch::Sender<Arc<EventSocket>>,
    status: Arc<Status>,
}

/// A configured event socket.
pub struct EventSocket {
    reader: Reader,
    client: Client,
    address: Url,
    headers: HeaderMap,
    company: String,
    subscriptions: Vec<String>,
    max_event: usize,
    reconnect_after: Duration,
    silence: Duration,
}

/// The settings of an event socket.
pub struct SocketSettings {
    /// Reads events from the received data.
    pub reader: Reader,
    /// The address of the stream, see [`stream_of`].
    pub url: Url,
    /// The id of the app on the platform.
    pub app_id: String,
    /// The app's key.
    pub api_key: Secret,
    /// The company whose events are subscribed to.
    pub company: String,
    /// The names of the subscribed events.
    pub subscriptions: Vec<String>,
    /// Maximum size of an event in bytes.
    pub max_event: u64,
    /// Age at which a connection is replaced.
    pub reconnect_after: Duration,
    /// Time without data after which a connection is replaced.
    pub silence: Duration,
}

/// Why an event socket can't be created.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address contains credentials, which would be logged, or a query or fragment.
    #[error("the address of the event socket has a user name, a password, a ? or a # in it")]
    Address,
    /// A setting can't be a header value. The error doesn't contain it, since it may be a secret.
    #[error("`{0}` is empty, or holds a control character (a line break at its end, perhaps)")]
    Header(&'static str),
}

/// The state of an event socket for the admin API.
pub struct SocketReport {
    /// The name of the source.
    pub name: Name,
    /// The address without the query.
    pub address: String,
    /// The names of the subscribed events.
    pub subscriptions: Vec<String>,
    /// The status.
    pub status: SocketStatus,
}

/// Returns the address of the stream for an API: on the same host, independent of the API's path.
pub fn stream_of(api_base: &Url) -> Url {
    let mut url = api_base.clone();
    url.set_path(PATH);
    url.set_query(None);
    url.set_fragment(None);
    url
}

impl EventSocket {
    /// Creates an event socket that uses this HTTP client. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// If a setting is invalid.
    pub fn new(settings: SocketSettings, client: Client) -> Result<Self, SocketError> {
        let SocketSettings { reader, url, subscriptions, company, reconnect_after, silence, .. } = settings;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !is_plain || url.fragment().is_some() {
            return Err(SocketError::Address);
        }
        let mut key = header("api_key", &format!("Bearer {}", settings.api_key.expose()))?;
        if settings.api_key.expose().is_empty() {
            return Err(SocketError::Header("api_key"));
        }
        key.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, key),
            (HeaderName::from_static("x-app-id"), header("app_id", &settings.app_id)?),
            (HeaderName::from_static("x-company-id"), header("company", &company)?),
            (HeaderName::from_static("x-api-version"), API_VERSION),
        ]);
        let mut address = url;
        // Set without percent-encoding: the commas separate the names.
        address.set_query(Some(&format!("subscriptions={}", subscriptions.join(","))));
        let max_event = usize::try_from(settings.max_event).unwrap_or(usize::MAX);
        Ok(Self { reader, client, address, headers, company, subscriptions, max_event, reconnect_after, silence })
    }

    /// The name of the source.
    pub fn name(&self) -> &Name {
        &self.reader.name
    }
}

/// Two sockets are equal if a connection opened for one can serve the other.
impl PartialEq for EventSocket {
    fn eq(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.max_event, it.reconnect_after, it.silence);
        self.reader == other.reader
            && self.address == other.address
            && self.headers == other.headers
            && of(self) == of(other)
    }
}

impl Default for EventSockets {
    /// Returns the sockets of a host that may keep all of them open.
    fn default() -> Self {
        Self::new(|_| watch::Sender::new(true).subscribe())
    }
}

impl EventSockets {
    /// Returns the sockets of a host that may keep those open whose permit is true.
    pub fn new(permits: impl Fn(&Name) -> Permit + Send + Sync + 'static) -> Self {
        let (running, stop, tasks) = (Mutex::default(), CancellationToken::new(), TaskTracker::new());
        Self { permits: Box::new(permits), running, stop, tasks }
    }

    /// Replaces the set of event sockets, which send their events to the sink. An unchanged socket keeps its
    /// connection, a changed one keeps it until the new connection is open, and a removed one is closed.
    pub fn set<S: Sink>(&self, sockets: impl IntoIterator<Item = EventSocket>, sink: &Arc<S>) {
        let mut running = self.running();
        let mut before = std::mem::take(&mut *running);
        for socket in sockets {
            let name = socket.name().clone();
            let kept = match before.remove(&name) {
                Some(kept) => {
                    kept.settings.send_if_modified(|settings| {
                        let is_other = **settings != socket;
                        if is_other {
                            *settings = Arc::new(socket);
                        }
                        is_other
                    });
                    kept
                }
                None => self.start(socket, sink.clone()),
            };
            running.insert(name, kept);
        }
    }

    /// Closes all event sockets. An event that the sink is accepting is still recorded; one that waits because of
    /// backpressure is lost and logged.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.running().clear();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::error!("event socket did not close in time; an event may be lost");
        }
    }

    /// Returns the state of each event socket.
    pub fn report(&self) -> Vec<SocketReport> {
        let running = self.running();
        let report = running.iter().map(|(name, running)| {
            let socket = running.settings.borrow();
            SocketReport {
                name: name.clone(),
                address: display_url(&socket.address),
                subscriptions: socket.subscriptions.clone(),
                status: running.status.read(),
            }
        });
        report.collect()
    }

    fn start<S: Sink>(&self, socket: EventSocket, sink: Arc<S>) -> Running {
        let permit = (self.permits)(socket.name());
        let (settings, receiver) = watch::channel(Arc::new(socket));
        let status = Arc::new(Status::default());
        self.tasks.spawn(
            Socket {
                settings: receiver,
                permit,
                sink,
                status: status.clone(),
                stop: self.stop.clone(),
                connections: Vec::new(),
                opening: None,
                not_before: Instant::now(),
                failures: 0,
                last_opened: None,
                is_outdated: false,
            }
            .run(),
        );
        Running { settings, status }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        lock(&self.running)
    }
}

fn header(what: &'static str, value: &str) -> Result<HeaderValue, SocketError> {
    HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()).ok_or(SocketError::Header(what))
}

/// Returns an address without its query, for display.
fn display_url(address: &Url) -> String {
    let mut address = address.clone();
    address.set_query(None);
    address.to_string()
}
