//! The event socket of Unique AI: events that are fetched, for hosts that no webhook can reach.
//!
//! The host holds a connection to `/public/event-socket/events/stream`, as Unique's Python toolkit does in its
//! `dev_util.py` (`unique-toolkit` 2026.44.2, on PyPI), and reads server-sent events from it. Nothing is signed: that TLS
//! leads to the platform, and that it lets the app in, stand for the signature. The platform closes each connection
//! after ten minutes without a word and sends nothing again. So the next connection is opened before that and both are
//! read for a while, what comes by both being known by its id; and when there is none for a time, that is said.

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

/// Where the stream is on the host of the API, as the toolkit has it.
const PATH: &str = "/public/event-socket/events/stream";

/// The version of the API the host speaks, as the toolkit names it.
const API_VERSION: HeaderValue = HeaderValue::from_static("2023-12-06");

/// How long events that have come already are handed on when the host stops.
const HAND_ON_WITHIN: Duration = Duration::from_secs(5);

/// The event sockets of this host, each kept open by a task of its own.
///
/// They can be replaced while they run.
#[derive(Default)]
pub struct EventSockets {
    running: Mutex<BTreeMap<Name, Running>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Running {
    wanted: watch::Sender<Arc<EventSocket>>,
    status: Arc<Status>,
}

/// What an event socket is connected to, and whose events come over it.
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

/// What an event socket is made of.
pub struct SocketSettings {
    /// Makes events of what comes.
    pub reader: Reader,
    /// The address of the stream, as [`stream_of`] makes it of the API's.
    pub url: Url,
    /// The app, as the platform registered it.
    pub app_id: String,
    /// The app's key.
    pub api_key: Secret,
    /// The company whose events come.
    pub company: String,
    /// The names of the events that come.
    pub subscriptions: Vec<String>,
    /// The largest event that is read, in bytes.
    pub max_event: u64,
    /// How old a connection gets before the next one takes its place.
    pub reconnect_after: Duration,
    /// How long nothing may come over a connection before another one takes its place.
    pub silence: Duration,
}

/// Why an event socket can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address holds what would end up in logs, or what can't be added to.
    #[error("the address of the event socket has a user name, a password, a ? or a # in it")]
    Address,
    /// It can't stand in a header. What it is isn't told: it may be a secret.
    #[error("`{0}` is empty, or holds a control character (a line break at its end, perhaps)")]
    Header(&'static str),
}

/// An event socket as the admin API tells of it.
pub struct SocketReport {
    /// The name of the source.
    pub name: Name,
    /// Where it is connected to.
    pub address: String,
    /// The names of the events that come.
    pub subscriptions: Vec<String>,
    /// How it fares.
    pub status: SocketStatus,
}

/// The address of the stream that belongs to an API: on the same host, whatever the API's path.
pub fn stream_of(api_base: &Url) -> Url {
    let mut url = api_base.clone();
    url.set_path(PATH);
    url.set_query(None);
    url.set_fragment(None);
    url
}

impl EventSocket {
    /// What these settings make, on connections of this client.
    ///
    /// # Errors
    ///
    /// When a setting can't be right. Nothing is sent yet.
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
        // As it is: the commas between names are no part of them.
        address.set_query(Some(&format!("subscriptions={}", subscriptions.join(","))));
        let max_event = usize::try_from(settings.max_event).unwrap_or(usize::MAX);
        Ok(Self { reader, client, address, headers, company, subscriptions, max_event, reconnect_after, silence })
    }

    /// The name of the source.
    pub fn name(&self) -> &Name {
        &self.reader.name
    }
}

/// Two are equal if a connection to the one can stand for a connection to the other.
impl PartialEq for EventSocket {
    fn eq(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.max_event, it.reconnect_after, it.silence);
        self.reader == other.reader
            && self.address == other.address
            && self.headers == other.headers
            && of(self) == of(other)
    }
}

impl EventSockets {
    /// Keeps these open from now on, and hands their events to the sink. One that is open already and stays as it is is
    /// left alone; one that has changed goes on until it is connected anew; one that is gone is closed.
    pub fn set<S: Sink>(&self, sockets: impl IntoIterator<Item = EventSocket>, sink: &Arc<S>) {
        let mut running = self.running();
        let mut before = std::mem::take(&mut *running);
        for socket in sockets {
            let name = socket.name().clone();
            let kept = match before.remove(&name) {
                Some(kept) => {
                    kept.wanted.send_if_modified(|wanted| {
                        let is_other = **wanted != socket;
                        if is_other {
                            *wanted = Arc::new(socket);
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

    /// Closes them all. An event that is being handed on is handed on; one that waits because the host can't take it is
    /// lost, and the log says so.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.running().clear();
        self.tasks.close();
        if tokio::time::timeout(HAND_ON_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::error!("event socket did not close in time; an event may be lost");
        }
    }

    /// How each of them fares.
    pub fn report(&self) -> Vec<SocketReport> {
        let running = self.running();
        let report = running.iter().map(|(name, running)| {
            let socket = running.wanted.borrow();
            SocketReport {
                name: name.clone(),
                address: shown(&socket.address),
                subscriptions: socket.subscriptions.clone(),
                status: running.status.read(),
            }
        });
        report.collect()
    }

    fn start<S: Sink>(&self, socket: EventSocket, sink: Arc<S>) -> Running {
        let (wanted, receiver) = watch::channel(Arc::new(socket));
        let status = Arc::new(Status::default());
        self.tasks.spawn(
            Socket {
                wanted: receiver,
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
        Running { wanted, status }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        lock(&self.running)
    }
}

fn header(what: &'static str, value: &str) -> Result<HeaderValue, SocketError> {
    HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()).ok_or(SocketError::Header(what))
}

/// An address without what is asked of it.
fn shown(address: &Url) -> String {
    let mut address = address.clone();
    address.set_query(None);
    address.to_string()
}
