//! The task that keeps an event socket open.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture};
use http::HeaderMap;
use jiff::{Timestamp, Unit};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Host;

use super::connection::{Connection, End, NotOpened, Received, RetryHint};
use super::status::{Gap, Status};
use super::{EventSocket, Permit, display_url};
use crate::sources::Rejection;
use modhost_core::backoff::{Backoff, jitter};
use modhost_core::metrics::EventOutcome;
use modhost_storage::event_sink::{Backpressure, Sink};

/// How long the old connection stays open beside the new one, so that an event sent during the switch arrives on one of
/// them. At most half of `reconnect_after`.
const OVERLAP: Duration = Duration::from_secs(5);

/// How long to retry each event of a closed connection under backpressure.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// A connection that lasted this long resets the backoff.
const STEADY: Duration = Duration::from_secs(10);

/// The backoff for failures that may be temporary.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The delay for failures that an operator has to fix. A change of the settings ends it.
const RETRY_RARELY: Duration = Duration::from_secs(300);

/// The state of the task.
pub(super) struct Socket<S> {
    /// The current settings. The sender is dropped when the source is removed.
    pub(super) settings: watch::Receiver<Arc<EventSocket>>,
    /// Whether this host may keep the socket open.
    pub(super) permit: Permit,
    pub(super) sink: Arc<S>,
    pub(super) status: Arc<Status>,
    /// Canceled when the host stops.
    pub(super) stop: CancellationToken,
    /// The open connections: those being replaced, and at the end the current one.
    pub(super) connections: Vec<Connection>,
    /// The connection being opened.
    pub(super) opening: Option<BoxFuture<'static, Result<Connection, NotOpened>>>,
    /// No connection is opened before this time.
    pub(super) not_before: Instant,
    /// The number of consecutive failures.
    pub(super) failures: u32,
    /// When the last connection was opened.
    pub(super) last_opened: Option<Instant>,
    /// Whether the current connection has to be replaced because the settings changed.
    pub(super) is_outdated: bool,
}

/// A reason why the task wakes up.
enum SocketEvent {
    Stop,
    Changed,
    /// This host may keep the socket open from now on, or must close it.
    Permit,
    Opened(Result<Connection, NotOpened>),
    Received(usize, Received),
    Time,
}

impl<S: Sink> Socket<S> {
    /// Keeps the socket open until the source is removed or the host stops.
    pub(super) async fn run(mut self) {
        self.status.set_elsewhere(!self.is_permitted());
        loop {
            self.open_if_due();
            match self.next_event().await {
                SocketEvent::Stop => break,
                SocketEvent::Changed => self.change().await,
                SocketEvent::Permit => self.permit_changed().await,
                SocketEvent::Opened(outcome) => {
                    self.opening = None;
                    match outcome {
                        Ok(connection) => self.opened(connection),
                        Err(failure) => self.not_opened(failure),
                    }
                }
                SocketEvent::Received(at, Received::Event(data)) => self.take(at, &data).await,
                SocketEvent::Received(at, Received::TooLarge) => self.too_large(at),
                SocketEvent::Received(at, Received::End(end)) => self.ended(at, end),
                SocketEvent::Time => {}
            }
            self.end_dead_connections();
            let now = Instant::now();
            self.connections.retain(|connection| !connection.can_close(now));
        }
        self.close().await;
    }

    /// Waits for the next event.
    async fn next_event(&mut self) -> SocketEvent {
        let time = self.next_wakeup();
        let Self { stop, settings, permit, opening, connections, .. } = self;
        let permit_changed = async {
            // Without its sender, it stays as it is.
            if permit.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let next = poll_fn(|cx| {
            for (at, connection) in connections.iter_mut().enumerate() {
                if let Poll::Ready(received) = connection.poll_next(cx) {
                    return Poll::Ready((at, received));
                }
            }
            Poll::Pending
        });
        tokio::select! {
            biased;
            () = stop.cancelled() => SocketEvent::Stop,
            changed = settings.changed() => if changed.is_ok() { SocketEvent::Changed } else { SocketEvent::Stop },
            () = permit_changed => SocketEvent::Permit,
            Some(outcome) = OptionFuture::from(opening.as_mut()) => SocketEvent::Opened(outcome),
            (at, received) = next => SocketEvent::Received(at, received),
            () = sleep_until(time) => SocketEvent::Time,
        }
    }

    /// Returns when to wake up without another event; `None`: only another event matters.
    fn next_wakeup(&self) -> Option<Instant> {
        let closing = self.connections.iter().filter_map(|connection| connection.close_at).min();
        if !self.is_permitted() {
            return closing;
        }
        let opening = match (&self.opening, self.current()) {
            (Some(_), _) => None,
            (None, Some(current)) if !self.is_outdated => Some(current.renew_at().max(self.not_before)),
            (None, _) => Some(self.not_before),
        };
        [closing, opening].into_iter().flatten().min()
    }

    /// Returns the current connection, unless it is being replaced.
    fn current(&self) -> Option<&Connection> {
        self.connections.last().filter(|connection| connection.close_at.is_none())
    }

    fn is_permitted(&self) -> bool {
        *self.permit.borrow()
    }

    fn settings(&self) -> Arc<EventSocket> {
        self.settings.borrow().clone()
    }

    /// Starts to open a connection if one is due.
    fn open_if_due(&mut self) {
        if !self.is_permitted() {
            return;
        }
        let now = Instant::now();
        let is_due = self.is_outdated || self.current().is_none_or(|current| current.is_due(now));
        if is_due && self.opening.is_none() && self.not_before <= now {
            self.opening = Some(Connection::open(self.settings()).boxed());
        }
    }

    fn opened(&mut self, connection: Connection) {
        let socket = connection.socket.clone();
        let source = socket.name();
        self.is_outdated = false;
        self.reset_backoff();
        self.last_opened = Some(Instant::now());
        let is_first = self.status.read().connections == 0;
        let gap = self.status.connected(SystemTime::now());
        if is_first && is_exposed(&socket) {
            tracing::warn!(
                %source, address = display_url(&socket.address),
                "event socket is not encrypted: anyone on the network path can read its key and forge events",
            );
        }
        if let Some(gap) = gap {
            log_gap(&socket, gap);
        } else if is_first {
            tracing::info!(
                %source, address = display_url(&socket.address), subscriptions = socket.subscriptions.join(", "),
                "connected to the event socket; it sends no earlier events",
            );
        } else {
            tracing::debug!(%source, "event socket connection replaced");
        }
        let close_at = Instant::now() + OVERLAP.min(socket.reconnect_after / 2);
        for connection in &mut self.connections {
            connection.close_at.get_or_insert(close_at);
        }
        self.connections.push(connection);
    }

    fn not_opened(&mut self, NotOpened { reason, retry }: NotOpened) {
        let socket = self.settings();
        let source = socket.name();
        self.status.failed(&reason);
        let wait = match retry {
            RetryHint::Soon => self.next_wait(),
            // `RETRY_RARELY` caps the delay that the platform requests.
            RetryHint::After(requested) => requested.min(RETRY_RARELY) + jitter(BACKOFF.first),
            RetryHint::Rarely => RETRY_RARELY,
        };
        self.not_before = Instant::now() + wait;
        let wait = whole(wait);
        if matches!(retry, RetryHint::Rarely) {
            tracing::error!(%source, retry_in = %wait, %reason, "cannot connect to the event socket");
        } else {
            tracing::warn!(%source, retry_in = %wait, %reason, "cannot connect to the event socket");
        }
    }

    /// Returns the delay before the next attempt and counts the failure.
    fn next_wait(&mut self) -> Duration {
        // Not full jitter: a platform that refuses immediately must not be asked again immediately.
        let wait = BACKOFF.equal_jitter(self.failures);
        self.failures += 1;
        wait
    }

    fn ended(&mut self, at: usize, end: End) {
        let connection = self.connections.remove(at);
        let source = connection.socket.name();
        if connection.close_at.is_some() && !self.connections.is_empty() {
            tracing::debug!(%source, reason = %end.why, "replaced event socket connection ended");
            return;
        }
        self.reset_backoff();
        let wait = self.next_wait();
        self.not_before = Instant::now() + wait;
        if let Some(last) = self.connections.last_mut() {
            // Its replacement has ended, so it stays the current connection.
            last.close_at = None;
            tracing::warn!(
                %source, retry_in = %whole(wait), reason = %end.why,
                "new event socket connection ended early; the previous one continues",
            );
            return;
        }
        self.status.disconnected(end.since);
        tracing::warn!(
            %source, since = time(end.since), retry_in = %whole(wait), reason = %end.why,
            "event socket disconnected: events sent from now on may be lost",
        );
    }

    /// Resets the failures if the last connection lasted long enough.
    fn reset_backoff(&mut self) {
        if self.last_opened.is_some_and(|opened| opened.elapsed() >= STEADY) {
            self.failures = 0;
        }
    }

    /// Ends a connection that has stopped sending keep-alives.
    fn end_dead_connections(&mut self) {
        let now = Instant::now();
        let dead = self.connections.iter().enumerate().find_map(|(at, it)| it.end_if_dead(now).map(|end| (at, end)));
        if let Some((at, end)) = dead {
            self.ended(at, end);
        }
    }

    fn too_large(&mut self, at: usize) {
        let socket = &self.connections[at].socket;
        self.status.refused();
        socket.reader.count(EventOutcome::Unreadable);
        tracing::error!(
            source = %socket.name(), max_body = socket.max_event,
            "event lost: larger than `max_body` in [server]"
        );
    }

    async fn take(&mut self, at: usize, data: &Bytes) {
        let socket = self.connections[at].socket.clone();
        let has_waited = deliver(&socket, data, &*self.sink, &self.status, &self.stop).await;
        if has_waited {
            self.connections.iter_mut().for_each(Connection::mark_unwatched);
        }
    }

    /// Applies changed settings. The current connection continues until the new one is open, except if the reader
    /// changed: then its events would get the wrong source, tenant or envelope.
    async fn change(&mut self) {
        self.settings.mark_unchanged();
        let socket = self.settings();
        (self.opening, self.is_outdated, self.failures, self.not_before) = (None, true, 0, Instant::now());
        if self.connections.iter().any(|connection| connection.socket.reader != socket.reader) {
            self.drain().await;
            self.status.disconnected(SystemTime::now());
        }
    }

    /// Opens the socket if this host may keep it open now, or closes it because another host does. Events that have been
    /// received are recorded: each host that received them records the same deliveries once.
    async fn permit_changed(&mut self) {
        self.permit.mark_unchanged();
        let (may_open, socket) = (self.is_permitted(), self.settings());
        let source = socket.name();
        self.status.set_elsewhere(!may_open);
        if may_open {
            (self.failures, self.not_before) = (0, Instant::now());
            tracing::info!(%source, "this host keeps the event socket open now");
            return;
        }
        self.opening = None;
        if !self.connections.is_empty() {
            self.drain().await;
            self.status.closed();
            tracing::warn!(%source, "event socket closed: another host may keep it open now");
        }
    }

    /// Closes the connections after passing on the events already received.
    async fn close(mut self) {
        let source = self.settings().name().clone();
        self.drain().await;
        self.status.disconnected(SystemTime::now());
        tracing::info!(%source, "event socket closed");
    }

    async fn drain(&mut self) {
        for mut connection in std::mem::take(&mut self.connections) {
            while let Some(received) = connection.next_buffered() {
                let Received::Event(data) = received else { continue };
                let delivered = deliver(&connection.socket, &data, &*self.sink, &self.status, &self.stop);
                // Time-limited: the event's tenant may have been removed from the settings.
                if tokio::time::timeout(DRAIN_WITHIN, delivered).await.is_err() {
                    self.status.refused();
                    tracing::error!(source = %connection.socket.name(), "event lost: cannot record it after the event socket closed");
                }
            }
        }
    }
}

/// Passes an event to the sink and retries until the sink accepts it, since the platform doesn't resend it. Returns
/// whether it had to wait.
async fn deliver(
    socket: &EventSocket,
    data: &Bytes,
    sink: &impl Sink,
    status: &Status,
    stop: &CancellationToken,
) -> bool {
    let source = socket.name();
    let headers = HeaderMap::new();
    let event = match socket.reader.read(&headers, data) {
        Ok(event) => event,
        Err(Rejection::NotAnEvent(why)) => {
            tracing::warn!(%source, reason = %why, "cannot read event");
            socket.reader.count(EventOutcome::Unreadable);
            // The platform doesn't resend the event, so it is stored for operators.
            let keep = || sink.keep_unreadable(socket.reader.unreadable(&headers, data, &why, None));
            let (kept, has_waited) = retry_until_accepted(socket, None, status, stop, keep).await;
            if kept.is_some() {
                status.refused();
            }
            return has_waited;
        }
        Err(rejection) => {
            status.refused();
            socket.reader.count(EventOutcome::Unwanted);
            tracing::warn!(%source, reason = %rejection, "event belongs to no tenant");
            return false;
        }
    };
    let id = event.id.clone();
    let (accepted, has_waited) =
        retry_until_accepted(socket, Some(&id), status, stop, || sink.accept(event.clone())).await;
    if accepted.is_some() {
        status.accepted();
    }
    has_waited
}

/// Calls `accept` until it succeeds, since the platform doesn't resend the event. Returns the result, `None` if the
/// host stopped before, and whether it had to wait.
async fn retry_until_accepted<T, F: Future<Output = Result<T, Backpressure>>>(
    socket: &EventSocket,
    id: Option<&str>,
    status: &Status,
    stop: &CancellationToken,
    accept: impl Fn() -> F,
) -> (Option<T>, bool) {
    let source = socket.name();
    let id = id.unwrap_or("unreadable");
    let mut has_waited = false;
    loop {
        match accept().await {
            Ok(accepted) => {
                if has_waited {
                    tracing::info!(%source, event = id, "delayed event recorded; reading the event socket again");
                }
                return (Some(accepted), has_waited);
            }
            Err(Backpressure { after, .. }) => {
                if !has_waited {
                    status.waiting(id);
                    tracing::warn!(%source, event = id, "cannot record the event now; pausing the event socket");
                }
                has_waited = true;
                if stop.run_until_cancelled(tokio::time::sleep(after)).await.is_none() {
                    status.refused();
                    tracing::error!(%source, event = id, "event lost: cannot record it before the host stops");
                    return (None, true);
                }
            }
        }
    }
}

fn log_gap(socket: &EventSocket, gap: Gap) {
    tracing::warn!(
        source = %socket.name(),
        from = time(gap.from), to = time(gap.to),
        lasted = %whole(gap.length()),
        "event socket was disconnected: events sent meanwhile are lost",
    );
}

/// Returns whether the traffic can be read on the network: plain HTTP to another machine.
fn is_exposed(socket: &EventSocket) -> bool {
    let is_here = match socket.address.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    socket.address.scheme() != "https" && !is_here
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Formats a time in whole seconds.
fn time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    time.round(Unit::Second).unwrap_or(time).to_string()
}

/// Formats a duration in whole seconds, or in milliseconds below one second.
fn whole(time: Duration) -> humantime::FormattedDuration {
    let whole = if time.as_secs() > 0 { Duration::from_secs(time.as_secs()) } else { time };
    humantime::format_duration(Duration::from_millis(whole.as_millis() as u64))
}
