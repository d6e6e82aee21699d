//! One connection to an event socket, from being opened to its end.

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
use modhost_core::sse::{self, Beginning, Parser, Read, is_keep_alive};

/// What the far side has to answer with.
const EVENT_STREAM: &str = "text/event-stream";

/// How long the far side may take to answer, unless the silence it is allowed is shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// After how many signs of life a connection is expected to go on giving them.
const REGULAR: u32 = 3;

/// A connection over which events come.
pub(super) struct Connection {
    /// What it was opened for.
    pub(super) socket: Arc<EventSocket>,
    stream: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
    /// What has come and isn't read yet.
    piece: Bytes,
    opened: Instant,
    /// How old it gets.
    renew_after: Duration,
    /// When something came last.
    heard: (Instant, SystemTime),
    /// How many comments and empty events have come.
    signs_of_life: u32,
    /// When it was last looked at, and was open with nothing to read.
    open_at: SystemTime,
    /// Whether it has been waited on ever since: then its end is noticed when it happens.
    is_watched: bool,
    /// When it is closed, now that another takes its place.
    pub(super) close_at: Option<Instant>,
}

/// What came over a connection.
pub(super) enum Received {
    /// The data of an event.
    Event(Bytes),
    /// An event that was larger than may be, and passed over.
    TooLarge,
    /// The end of the connection.
    End(End),
}

/// How a connection ended.
pub(super) struct End {
    /// From when on events may have been missed.
    pub(super) since: SystemTime,
    /// Why, for people.
    pub(super) why: String,
}

/// Why there is no connection.
pub(super) struct NotOpened {
    /// For people.
    pub(super) why: String,
    /// When another try may end better.
    pub(super) again: RetryHint,
}

/// When to try again.
pub(super) enum RetryHint {
    /// Soon: it may pass.
    Soon,
    /// When the far side says.
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
            // Sockets that were opened together are not to be opened together again.
            renew_after: socket.reconnect_after.mul_f64(1.0 - 0.1 * fastrand::f64()),
            heard: (now, SystemTime::now()),
            signs_of_life: 0,
            open_at: SystemTime::now(),
            is_watched: false,
            close_at: None,
            socket,
        })
    }

    /// Reads what came. Nothing is lost if it is asked again later.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            if let Some(came) = self.next_at_hand() {
                return Poll::Ready(came);
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

    /// Reads what has come already.
    pub(super) fn next_at_hand(&mut self) -> Option<Received> {
        loop {
            match self.parser.next(&mut self.piece)? {
                Read::Data(data) if is_keep_alive("", &data) => {
                    self.signs_of_life = self.signs_of_life.saturating_add(1)
                }
                Read::Named(name, data) if data.is_empty() || is_keep_alive(&name, &data) => {
                    self.signs_of_life = self.signs_of_life.saturating_add(1);
                }
                Read::Data(data) | Read::Named(_, data) => return Some(Received::Event(data)),
                Read::TooLarge => return Some(Received::TooLarge),
                Read::SignOfLife => self.signs_of_life = self.signs_of_life.saturating_add(1),
            }
        }
    }

    /// Says that it wasn't looked at for a while: what it is by now nobody knows.
    pub(super) fn looked_away(&mut self) {
        self.is_watched = false;
    }

    /// When another one is to take its place, if nothing comes until then.
    pub(super) fn renew_at(&self) -> Instant {
        (self.opened + self.renew_after).min(self.silent_at())
    }

    /// Whether another one is to take its place.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.opened + self.renew_after <= now || self.is_silent(now)
    }

    /// When it counts as silent, if nothing comes until then.
    fn silent_at(&self) -> Instant {
        self.heard.0 + self.socket.silence
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.is_watched && self.silent_at() <= now
    }

    /// Whether it may be closed: its time has come, and all that came over it was read.
    pub(super) fn can_close(&self, now: Instant) -> bool {
        self.is_watched && self.close_at.is_some_and(|at| at <= now)
    }

    /// Its end, if it gave signs of life and gives them no more.
    ///
    /// One that never gave any may just have had nothing to say: of such a one nobody can tell whether it is dead.
    pub(super) fn died(&self, now: Instant) -> Option<End> {
        (self.is_silent(now) && self.signs_of_life >= REGULAR).then(|| End {
            since: self.heard.1,
            why: format!("nothing came for {:?}, where signs of life had come before", self.socket.silence),
        })
    }

    fn end(&self, error: Option<reqwest::Error>) -> End {
        // Who ran into a time limit has been gone for longer, and half an event shows that the rest of it got lost.
        let is_late = error.as_ref().is_some_and(reqwest::Error::is_timeout) || self.parser.is_within_event();
        let noticed = if self.is_watched { SystemTime::now() } else { self.open_at };
        let since = if is_late { noticed.min(self.heard.1) } else { noticed };
        let why = match error {
            None if self.parser.is_within_event() => "the platform closed the connection within an event".into(),
            None => "the platform closed the connection".into(),
            Some(error) => format!("the connection broke: {}", cause(error)),
        };
        End { since, why }
    }
}

impl NotOpened {
    fn soon(why: String) -> Self {
        Self { why, again: RetryHint::Soon }
    }

    fn rarely(why: String) -> Self {
        Self { why, again: RetryHint::Rarely }
    }
}

/// Whether the far side has begun a stream of events; false: how it begins has to show that.
fn check(socket: &EventSocket, status: StatusCode, headers: &HeaderMap) -> Result<bool, NotOpened> {
    if status == StatusCode::OK {
        return check_content(headers);
    }
    let address = super::shown(&socket.address);
    Err(NotOpened::rarely(match status {
        StatusCode::UNAUTHORIZED => {
            format!(
                "{status}: the platform doesn't know the key; check `api_key` and `app_id` of the tenant's platform"
            )
        }
        StatusCode::FORBIDDEN => format!(
            "{status}: the app may not listen to the events of company `{}`; check that id, and on the platform that \
             the app is active and belongs to it",
            socket.company
        ),
        StatusCode::NOT_FOUND => format!(
            "{status}: there is no event socket at {address}; check `api_base` of the tenant's platform, or set `url` \
             of the source"
        ),
        status if status.is_redirection() => format!(
            "{status}: redirects are not followed, since the key would go along; check `api_base` of the tenant's \
             platform, or set `url` of the source"
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => return Err(passing(status, headers)),
        status if status.is_server_error() => return Err(passing(status, headers)),
        status => format!("{status}: {address} doesn't answer with a stream of events"),
    }))
}

/// Something else than a stream of events is most often the page of a proxy, or of a login. But there are gateways that
/// hand a stream on under a type that says nothing.
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
    let what = if content.is_empty() { "something unnamed" } else { content };
    NotOpened::rarely(format!(
        "the answer is {what} and no {EVENT_STREAM}; check `api_base` of the tenant's platform, or set `url` of the source"
    ))
}

/// Waits for the beginning of an answer, and hands it out if it is one of a stream of events. Where nothing comes and the
/// answer stays open, that is what a stream without events does.
async fn begin(
    stream: &mut BoxStream<'static, reqwest::Result<Bytes>>,
    content: &str,
    limit: Duration,
) -> Result<Bytes, NotOpened> {
    let deadline = Instant::now() + limit;
    let mut begun = Bytes::new();
    loop {
        begun.advance(sse::blank(&begun));
        match sse::beginning(&begun) {
            Beginning::Events => return Ok(begun),
            Beginning::Other => return Err(no_events(content)),
            Beginning::Unknown => {}
        }
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(Some(Ok(piece))) => begun = [&begun[..], &piece].concat().into(),
            Ok(Some(Err(error))) => return Err(NotOpened::soon(cause(error))),
            Ok(None) => return Err(no_events(content)),
            Err(_) => return Ok(begun),
        }
    }
}

fn passing(status: StatusCode, headers: &HeaderMap) -> NotOpened {
    let named = headers.get(RETRY_AFTER).and_then(|value| parse_retry_after(value.to_str().ok()?, Timestamp::now()));
    NotOpened { why: status.to_string(), again: named.map_or(RetryHint::Soon, RetryHint::After) }
}

/// What is behind an error of the HTTP client: its own words name the address and no more.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
