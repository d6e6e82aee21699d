//! An event socket that is kept open: what is done when, and what is said about it.

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
use super::{EventSocket, shown};
use crate::sources::Rejection;
use modhost_core::backoff::{Backoff, jitter};
use modhost_core::metrics::EventOutcome;
use modhost_storage::event_sink::{Backpressure, Sink};

/// How long the old connection stays open beside the new one: an event that is on its way comes by one of them. Half
/// the time to the next connection at most.
const OVERLAP: Duration = Duration::from_secs(5);

/// How long each event of a connection that is closed is waited with, if the host can't take it.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// A connection that lived this long was a good one: the next is not held back.
const STEADY: Duration = Duration::from_secs(10);

/// The delays before another try that may succeed without anybody's help.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The wait before a further try where somebody has to do something first. A change of the settings ends it.
const RETRY_RARELY: Duration = Duration::from_secs(300);

/// An event socket that is kept open, until nobody wants it any more.
pub(super) struct Socket<S> {
    /// What it is to be. Its other end is dropped when the source is gone.
    pub(super) wanted: watch::Receiver<Arc<EventSocket>>,
    pub(super) sink: Arc<S>,
    pub(super) status: Arc<Status>,
    /// The host stops.
    pub(super) stop: CancellationToken,
    /// The connections that are open: the one events come over, at the end, and those it replaces.
    pub(super) connections: Vec<Connection>,
    /// One that is being opened.
    pub(super) opening: Option<BoxFuture<'static, Result<Connection, NotOpened>>>,
    /// Before this time none is opened.
    pub(super) not_before: Instant,
    /// How often in a row there was no good one.
    pub(super) failures: u32,
    /// When the last one was opened, whatever became of it.
    pub(super) last_opened: Option<Instant>,
    /// Whether the one there is has to be replaced, since the settings have changed.
    pub(super) is_outdated: bool,
}

/// What happens next.
enum SocketEvent {
    Stop,
    Changed,
    Opened(Result<Connection, NotOpened>),
    Received(usize, Received),
    Time,
}

impl<S: Sink> Socket<S> {
    /// Keeps it open.
    pub(super) async fn run(mut self) {
        loop {
            self.open_if_due();
            match self.turn().await {
                SocketEvent::Stop => break,
                SocketEvent::Changed => self.change().await,
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
            self.bury();
            let now = Instant::now();
            self.connections.retain(|connection| !connection.can_close(now));
        }
        self.close().await;
    }

    /// Waits for what happens next.
    async fn turn(&mut self) -> SocketEvent {
        let time = self.next_look();
        let Self { stop, wanted, opening, connections, .. } = self;
        let next = poll_fn(|cx| {
            for (at, connection) in connections.iter_mut().enumerate() {
                if let Poll::Ready(came) = connection.poll_next(cx) {
                    return Poll::Ready((at, came));
                }
            }
            Poll::Pending
        });
        tokio::select! {
            biased;
            () = stop.cancelled() => SocketEvent::Stop,
            changed = wanted.changed() => if changed.is_ok() { SocketEvent::Changed } else { SocketEvent::Stop },
            Some(outcome) = OptionFuture::from(opening.as_mut()) => SocketEvent::Opened(outcome),
            (at, came) = next => SocketEvent::Received(at, came),
            () = sleep_until(time) => SocketEvent::Time,
        }
    }

    /// When there may be something to do though nothing happens; none: when something happens.
    fn next_look(&self) -> Option<Instant> {
        let closing = self.connections.iter().filter_map(|connection| connection.close_at).min();
        let opening = match (&self.opening, self.current()) {
            (Some(_), _) => None,
            (None, Some(current)) if !self.is_outdated => Some(current.renew_at().max(self.not_before)),
            (None, _) => Some(self.not_before),
        };
        [closing, opening].into_iter().flatten().min()
    }

    /// The connection events come over, but for those that are being replaced.
    fn current(&self) -> Option<&Connection> {
        self.connections.last().filter(|connection| connection.close_at.is_none())
    }

    fn wanted(&self) -> Arc<EventSocket> {
        self.wanted.borrow().clone()
    }

    /// Begins to open a connection, if there should be another.
    fn open_if_due(&mut self) {
        let now = Instant::now();
        let is_due = self.is_outdated || self.current().is_none_or(|current| current.is_due(now));
        if is_due && self.opening.is_none() && self.not_before <= now {
            self.opening = Some(Connection::open(self.wanted()).boxed());
        }
    }

    fn opened(&mut self, connection: Connection) {
        let socket = connection.socket.clone();
        let source = socket.name();
        self.is_outdated = false;
        self.forgive();
        self.last_opened = Some(Instant::now());
        let is_first = self.status.read().connections == 0;
        let gap = self.status.connected(SystemTime::now());
        if is_first && is_exposed(&socket) {
            tracing::warn!(
                %source, address = shown(&socket.address),
                "event socket is not encrypted: anyone on the network path can read its key and forge events",
            );
        }
        if let Some(gap) = gap {
            log_gap(&socket, gap);
        } else if is_first {
            tracing::info!(
                %source, address = shown(&socket.address), subscriptions = socket.subscriptions.join(", "),
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

    fn not_opened(&mut self, NotOpened { why, again }: NotOpened) {
        let socket = self.wanted();
        let source = socket.name();
        self.status.failed(&why);
        let wait = match again {
            RetryHint::Soon => self.next_wait(),
            // Whatever is asked for, this is often enough.
            RetryHint::After(asked) => asked.min(RETRY_RARELY) + jitter(BACKOFF.first),
            RetryHint::Rarely => RETRY_RARELY,
        };
        self.not_before = Instant::now() + wait;
        let wait = whole(wait);
        if matches!(again, RetryHint::Rarely) {
            tracing::error!(%source, retry_in = %wait, reason = %why, "cannot connect to the event socket");
        } else {
            tracing::warn!(%source, retry_in = %wait, reason = %why, "cannot connect to the event socket");
        }
    }

    /// The wait before the next try, after one that failed.
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
        self.forgive();
        let wait = self.next_wait();
        self.not_before = Instant::now() + wait;
        if let Some(last) = self.connections.last_mut() {
            // It was to be replaced by the one that has ended, and is needed again.
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

    /// Forgets the failures before the last connection, if that was a good one.
    fn forgive(&mut self) {
        if self.last_opened.is_some_and(|opened| opened.elapsed() >= STEADY) {
            self.failures = 0;
        }
    }

    /// Ends connections that gave signs of life and give them no more.
    fn bury(&mut self) {
        let now = Instant::now();
        let dead = self.connections.iter().enumerate().find_map(|(at, it)| it.died(now).map(|end| (at, end)));
        if let Some((at, end)) = dead {
            self.ended(at, end);
        }
    }

    fn too_large(&mut self, at: usize) {
        let socket = &self.connections[at].socket;
        self.status.refused();
        socket.reader.count(EventOutcome::Unreadable);
        tracing::error!(
            source = %socket.name(),
            "an event of more than {} bytes came, `max_body` in [server]; it was left out and doesn't come again",
            socket.max_event,
        );
    }

    async fn take(&mut self, at: usize, data: &Bytes) {
        let socket = self.connections[at].socket.clone();
        let has_waited = hand_on(&socket, data, &*self.sink, &self.status, &self.stop).await;
        if has_waited {
            self.connections.iter_mut().for_each(Connection::looked_away);
        }
    }

    /// Takes in changed settings: the connection there is goes on until one after the new ones is open. If the events
    /// are another's now, it can't.
    async fn change(&mut self) {
        self.wanted.mark_unchanged();
        let socket = self.wanted();
        (self.opening, self.is_outdated, self.failures, self.not_before) = (None, true, 0, Instant::now());
        if self.connections.iter().any(|connection| connection.socket.reader != socket.reader) {
            self.drain().await;
            self.status.disconnected(SystemTime::now());
        }
    }

    /// Closes the connections; what had come over them by then is handed on.
    async fn close(mut self) {
        let source = self.wanted().name().clone();
        self.drain().await;
        self.status.disconnected(SystemTime::now());
        tracing::info!(%source, "event socket closed");
    }

    async fn drain(&mut self) {
        for mut connection in std::mem::take(&mut self.connections) {
            while let Some(came) = connection.next_at_hand() {
                let Received::Event(data) = came else { continue };
                let handed_on = hand_on(&connection.socket, &data, &*self.sink, &self.status, &self.stop);
                // Its tenant may be gone from the settings for good.
                if tokio::time::timeout(DRAIN_WITHIN, handed_on).await.is_err() {
                    self.status.refused();
                    tracing::error!(source = %connection.socket.name(), "event lost: cannot record it after the event socket closed");
                }
            }
        }
    }
}

/// Hands an event on, and waits with it until it is taken: the platform doesn't send it again. Answers with whether it
/// had to wait.
async fn hand_on(
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
            // It doesn't come again: whoever looks has this one.
            let keep = || sink.keep(socket.reader.unreadable(&headers, data, &why, None));
            let (kept, has_waited) = until_taken(socket, None, status, stop, keep).await;
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
    let (taken, has_waited) = until_taken(socket, Some(&id), status, stop, || sink.take(event.clone())).await;
    if taken.is_some() {
        status.taken();
    }
    has_waited
}

/// Does something with an event until the host can: the platform doesn't send it again. Answers with what came of it, none
/// if the host stopped before, and with whether it had to wait.
async fn until_taken<T, F: Future<Output = Result<T, Backpressure>>>(
    socket: &EventSocket,
    id: Option<&str>,
    status: &Status,
    stop: &CancellationToken,
    take: impl Fn() -> F,
) -> (Option<T>, bool) {
    let source = socket.name();
    let id = id.unwrap_or("unreadable");
    let mut has_waited = false;
    loop {
        match take().await {
            Ok(taken) => {
                if has_waited {
                    tracing::info!(%source, event = id, "delayed event recorded; reading the event socket again");
                }
                return (Some(taken), has_waited);
            }
            Err(Backpressure { after, .. }) => {
                if !has_waited {
                    status.held(id);
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

/// Whether what is said can be listened to on the way: by plain HTTP, to another machine.
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

/// A time as people read it, in whole seconds.
fn time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    time.round(Unit::Second).unwrap_or(time).to_string()
}

/// A length of time as people read it: whole seconds, or milliseconds where that would be none.
fn whole(time: Duration) -> humantime::FormattedDuration {
    let whole = if time.as_secs() > 0 { Duration::from_secs(time.as_secs()) } else { time };
    humantime::format_duration(Duration::from_millis(whole.as_millis() as u64))
}
