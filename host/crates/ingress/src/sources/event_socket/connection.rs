//! One connection to an event socket.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::EventSocket;
use modhost_core::retry_after::parse_retry_after;
use modhost_core::sse::{self, BodyFormat, Item, Parser, is_keep_alive};

/// The required content type of the response.
const EVENT_STREAM: &str = "text/event-stream";

/// Time limit for the response head, unless the socket's silence limit is shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Number of keep-alives after which a connection is expected to continue sending them.
const MIN_KEEP_ALIVES: u32 = 3;

/// A connection to an event socket.
pub(super) struct Connection {
    /// The socket it was opened for.
    pub(super) socket: Arc<EventSocket>,
    stream: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
    /// Received bytes that are not parsed yet.
    piece: Bytes,
    opened: Instant,
    /// The age at which it is replaced.
    renew_after: Duration,
    /// When the last bytes arrived.
    heard: (Instant, SystemTime),
    /// The number of comments and empty events received.
    keep_alives: u32,
    /// When it was last polled and was open without data.
    open_at: SystemTime,
    /// Whether it has been polled without interruption since then, so that its end is noticed immediately.
    is_watched: bool,
    /// When to close it, once a new connection replaces it.
    pub(super) close_at: Option<Instant>,
}

/// A result of reading a connection.
pub(super) enum Received {
    /// The data of an event.
    Event(Bytes),
    /// An event above the size limit, which was skipped.
    TooLarge,
    /// The end of the connection.
    End(End),
}

/// How a connection ended.
pub(super) struct End {
    /// The time from which events may have been missed.
    pub(super) since: SystemTime,
    /// The reason, for people.
    pub(super) why: String,
}

/// Why a connection could not be opened.
pub(super) struct NotOpened {
    /// The reason, for people.
    pub(super) reason: String,
    /// When to try again.
    pub(super) retry: RetryHint,
}

/// When to try again.
pub(super) enum RetryHint {
    /// Soon: the cause may be temporary.
    Soon,
    /// After the time the platform named.
    After(Duration),
    /// Rarely: an operator has to act first.
    Rarely,
}

impl Connection {
    /// Opens a connection.
    pub(super) async fn open(socket: Arc<EventSocket>) -> Result<Self, NotOpened> {
        let limit = ANSWER_WITHIN.min(socket.silence);
        let request = socket.client.get(socket.address.clone()).headers(socket.headers.clone());
        let request = request.header(ACCEPT, HeaderValue::from_static(EVENT_STREAM)).send();
        let answered = match tokio::time::timeout(limit, request).await {
            Ok(answered) => answered.map_err(|error| NotOpened::soon(cause(error)))?,
            Err(_) => return Err(NotOpened::soon(format!("no answer within {limit:?}"))),
        };
        let is_declared = check(&socket, answered.status(), answered.headers())?;
        let content = content_of(answered.headers()).to_owned();
        let mut stream = answered.bytes_stream().boxed();
        let piece = if is_declared { Bytes::new() } else { begin(&mut stream, &content, limit).await? };
        let now = Instant::now();
        Ok(Self {
            stream,
            parser: Parser::new(socket.max_event),
            piece,
            opened: now,
            // Jitter, so that sockets opened together are not replaced together.
            renew_after: socket.reconnect_after.mul_f64(1.0 - 0.1 * fastrand::f64()),
            heard: (now, SystemTime::now()),
            keep_alives: 0,
            open_at: SystemTime::now(),
            is_watched: false,
            close_at: None,
            socket,
        })
    }

    /// Reads the next event or the end. Cancel-safe: no data is lost if it is polled again later.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            if let Some(received) = self.next_buffered() {
                return Poll::Ready(received);
            }
            match self.stream.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    self.heard = (Instant::now(), SystemTime::now());
                    self.piece = piece;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Received::End(self.end(Some(error)))),
                Poll::Ready(None) => return Poll::Ready(Received::End(self.end(None))),
                Poll::Pending => {
                    self.open_at = SystemTime::now();
                    self.is_watched = true;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads the next event from the bytes already received.
    pub(super) fn next_buffered(&mut self) -> Option<Received> {
        loop {
            match self.parser.next(&mut self.piece)? {
                Item::Data(data) if is_keep_alive("", &data) => self.keep_alives = self.keep_alives.saturating_add(1),
                Item::Named(name, data) if data.is_empty() || is_keep_alive(&name, &data) => {
                    self.keep_alives = self.keep_alives.saturating_add(1);
                }
                Item::Data(data) | Item::Named(_, data) => return Some(Received::Event(data)),
                Item::TooLarge => return Some(Received::TooLarge),
                Item::KeepAlive => self.keep_alives = self.keep_alives.saturating_add(1),
            }
        }
    }

    /// Notes that it wasn't polled for a while, so its state is unknown.
    pub(super) fn mark_unwatched(&mut self) {
        self.is_watched = false;
    }

    /// Returns when to replace it if nothing arrives until then.
    pub(super) fn renew_at(&self) -> Instant {
        (self.opened + self.renew_after).min(self.silent_at())
    }

    /// Returns whether to replace it now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.opened + self.renew_after <= now || self.is_silent(now)
    }

    /// Returns when it counts as silent if nothing arrives until then.
    fn silent_at(&self) -> Instant {
        self.heard.0 + self.socket.silence
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.is_watched && self.silent_at() <= now
    }

    /// Returns whether to close it: `close_at` has passed, and everything received has been read.
    pub(super) fn can_close(&self, now: Instant) -> bool {
        self.is_watched && self.close_at.is_some_and(|at| at <= now)
    }

    /// Returns its end if it sent keep-alives regularly and has stopped.
    ///
    /// A connection that never sent any may just have no events: it can't be distinguished from a dead one.
    pub(super) fn end_if_dead(&self, now: Instant) -> Option<End> {
        (self.is_silent(now) && self.keep_alives >= MIN_KEEP_ALIVES).then(|| End {
            since: self.heard.1,
            why: format!("no data for {:?}, although the platform had sent keep-alives before", self.socket.silence),
        })
    }

    fn end(&self, error: Option<reqwest::Error>) -> End {
        // After a timeout the connection has been dead for longer, and an incomplete event shows that data was lost.
        let is_late = error.as_ref().is_some_and(reqwest::Error::is_timeout) || self.parser.is_within_event();
        let noticed = if self.is_watched { SystemTime::now() } else { self.open_at };
        let since = if is_late { noticed.min(self.heard.1) } else { noticed };
        let why = match error {
            None if self.parser.is_within_event() => {
                "the platform closed the connection in the middle of an event".into()
            }
            None => "the platform closed the connection".into(),
            Some(error) => format!("the connection broke: {}", cause(error)),
        };
        End { since, why }
    }
}

impl NotOpened {
    fn soon(reason: String) -> Self {
        Self { reason, retry: RetryHint::Soon }
    }

    fn rarely(reason: String) -> Self {
        Self { reason, retry: RetryHint::Rarely }
    }
}

/// Checks the head of the response. Returns `false` if the content type is inconclusive and the body has to show
/// whether it is an event stream.
fn check(socket: &EventSocket, status: StatusCode, headers: &HeaderMap) -> Result<bool, NotOpened> {
    if status == StatusCode::OK {
        return check_content(headers);
    }
    let address = super::display_url(&socket.address);
    Err(NotOpened::rarely(match status {
        StatusCode::UNAUTHORIZED => {
            format!("{status}: the platform rejects the key; check `api_key` and `app_id` of the tenant's platform")
        }
        StatusCode::FORBIDDEN => format!(
            "{status}: the app is not authorized for events of company `{}`; check that id, and on the platform that \
             the app is active and belongs to it",
            socket.company
        ),
        StatusCode::NOT_FOUND => format!(
            "{status}: there is no event socket at {address}; check `api_base` of the tenant's platform, or set `url` \
             of the source"
        ),
        status if status.is_redirection() => format!(
            "{status}: redirects are not followed, since they would send the key to another host; check `api_base` of \
             the tenant's platform, or set `url` of the source"
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => return Err(transient(status, headers)),
        status if status.is_server_error() => return Err(transient(status, headers)),
        status => format!("{status}: the response of {address} is not an event stream"),
    }))
}

/// Checks the content type of the response. Returns `false` if it is inconclusive, because some gateways forward a
/// stream under a generic type. Any other type is an error: it is usually that of a proxy's page or a login page.
fn check_content(headers: &HeaderMap) -> Result<bool, NotOpened> {
    match content_of(headers).to_ascii_lowercase().as_str() {
        EVENT_STREAM => Ok(true),
        "" | "application/json" | "text/plain" | "application/octet-stream" => Ok(false),
        _ => Err(no_events(content_of(headers))),
    }
}

fn content_of(headers: &HeaderMap) -> &str {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

fn no_events(content: &str) -> NotOpened {
    let what = if content.is_empty() { "untyped" } else { content };
    NotOpened::rarely(format!(
        "the response is {what} instead of {EVENT_STREAM}; check `api_base` of the tenant's platform, or set `url` of the source"
    ))
}

/// Waits for the start of the body and returns it if it is an event stream. A response that stays open without data
/// counts as one: that is how a stream without events looks.
async fn begin(
    stream: &mut BoxStream<'static, reqwest::Result<Bytes>>,
    content: &str,
    limit: Duration,
) -> Result<Bytes, NotOpened> {
    let deadline = Instant::now() + limit;
    let mut begun = Bytes::new();
    loop {
        begun.advance(sse::leading_blank(&begun));
        match sse::detect_format(&begun) {
            BodyFormat::Events => return Ok(begun),
            BodyFormat::Other => return Err(no_events(content)),
            BodyFormat::Unknown => {}
        }
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(Some(Ok(piece))) => begun = [&begun[..], &piece].concat().into(),
            Ok(Some(Err(error))) => return Err(NotOpened::soon(cause(error))),
            Ok(None) => return Err(no_events(content)),
            Err(_) => return Ok(begun),
        }
    }
}

fn transient(status: StatusCode, headers: &HeaderMap) -> NotOpened {
    let named = headers.get(RETRY_AFTER).and_then(|value| parse_retry_after(value.to_str().ok()?, Timestamp::now()));
    NotOpened { reason: status.to_string(), retry: named.map_or(RetryHint::Soon, RetryHint::After) }
}

/// Returns the root cause of an error of the HTTP client: its own message only names the address.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
