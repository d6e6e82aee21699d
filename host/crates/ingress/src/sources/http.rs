//! The public listener: receives events and answers probes.
//!
//! The status codes suit the strictest platform, Unique: it treats 2xx as delivered, retries 3xx, 429 and 5xx up to
//! five times, and after any other status marks the endpoint as expired and sends no further events. So a 4xx other
//! than 429 is only for requests that a retry can't make valid: a forged signature, another tenant's company, an
//! unknown path, a method other than POST, or a compressed or incomplete body. Everything that may succeed later gets
//! 429 or 503 with `Retry-After`. The source's scheme chooses the status for forged requests, for events that can't be
//! read and for companies without a tenant, and the response to a recorded event.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use tracing::Instrument;

use super::envelope::NotAnEvent;
use super::schemes::Request as Verifiable;
use super::{Received, Rejection, RouteEntry, Source, Sources};
use crate::health::{self, Health};
use crate::listener::{BodyError, Client, SignatureFailureLimiter};
use modhost_core::metrics::{self, EventOutcome};
use modhost_storage::event_sink::{Backpressure, Sink, SinkOutcome};

/// `Retry-After` for a body that is too large, in seconds: time for an operator to read the log and raise the limit.
const AFTER_TOO_LARGE: u64 = 60;

/// `Retry-After` for an event whose timestamp is too far from the host's clock, in seconds: a clock has to be set
/// first.
const AFTER_CLOCKS_DIFFER: u64 = 60;

/// `Retry-After` for an invalid signature shortly after the secrets changed, in seconds: the new secret may be half
/// written.
const AFTER_SECRETS_CHANGE: u64 = 10;

/// `Retry-After` for an event that cannot be read, in seconds: time for an operator to inspect it.
const AFTER_UNREADABLE: u64 = 60;

/// Maximum number of bytes to drain of a body that is too large.
const MAX_DRAIN: usize = 16 << 20;

/// Maximum time to drain a body that is too large.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// `Retry-After` for a body that arrived too slowly or exceeded the budget of all bodies, in seconds.
const AFTER_BODY_ERROR: u64 = 10;

/// The number of requests in progress from which the host is busy: then it refuses requests that are probably forged
/// without reading them. Otherwise it verifies every request.
const BUSY: usize = 64;

struct Listener<S> {
    sources: Arc<Sources>,
    signature_failures: Arc<SignatureFailureLimiter>,
    in_progress: AtomicUsize,
    sink: S,
}

/// Returns the routes of the public listener: probes, and the paths of the sources. Invalid signatures are counted in
/// `signature_failures`; while the host is busy, requests from an address with too many of them are refused unread.
pub fn router<S: Sink>(
    sources: Arc<Sources>,
    signature_failures: Arc<SignatureFailureLimiter>,
    sink: S,
    health: Arc<Health>,
) -> Router {
    let listener = Arc::new(Listener { sources, signature_failures, in_progress: AtomicUsize::new(0), sink });
    let health_route = Router::new().route("/health", get(health::public_health)).with_state(health.clone());
    let events = Router::new().fallback(receive::<S>).with_state(listener);
    events.merge(health_route).merge(health::probe_routes(health))
}

async fn receive<S: Sink>(State(listener): State<Arc<Listener<S>>>, mut request: Request) -> Response {
    name_host(&mut request);
    let route = listener.sources.by_path.load().get(request.uri().path()).cloned();
    let Some(route) = route else {
        return refusal(
            StatusCode::NOT_FOUND,
            "no source has this path; send events to the `path` of a source in modules.toml",
        );
    };
    let client = request.extensions().get().copied().unwrap_or(Client::UNKNOWN);
    let span = tracing::info_span!("request", source = %route.source.reader.name, client = %client.address);
    let answer = handle(&listener, &route, request).instrument(span).await;
    metrics::request(&route.source.reader.name, answer.status().as_u16());
    answer
}

/// Sets the `Host` header to the host of the request target, which takes precedence (RFC 9112, section 3.2.2): HTTP/2
/// requests have no such header, and schemes read only headers.
fn name_host(request: &mut Request) {
    let authority = request.uri().authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().insert(header::HOST, authority);
    }
}

/// Answers a request to a source.
async fn handle<S: Sink>(listener: &Listener<S>, route: &RouteEntry, request: Request) -> Response {
    if request.method() != Method::POST {
        return ([(header::ALLOW, "POST")], refusal(StatusCode::METHOD_NOT_ALLOWED, "events are sent with POST"))
            .into_response();
    }
    let client = request.extensions().get().copied().unwrap_or(Client::UNKNOWN);
    let requests = InProgress::enter(&listener.in_progress);
    if requests.others >= BUSY
        && let Some(wait) = listener.blocked_for(client, &route.source)
    {
        return too_many_failures(wait);
    }
    let max_body = **listener.sources.max_body.load();
    let (parts, body) = request.into_parts();
    if let Some(coding) = content_coding(&parts.headers) {
        tracing::warn!(encoding = %format_args!("{coding:.40}"), "request refused: compressed body");
        drain(body).await;
        return refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body has a Content-Encoding; send it uncompressed, because the signature covers the bytes as sent",
        );
    }
    match read(&parts.headers, body, max_body).await {
        Ok(body) => answer(listener, route, client, &parts.headers, body).await,
        Err(BodyFailure::TooLarge) => {
            tracing::error!(max_body, "request refused: the body is larger than `max_body` in [server]");
            let answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "the body is larger than this host accepts");
            ([(header::RETRY_AFTER, AFTER_TOO_LARGE)], answer).into_response()
        }
        Err(BodyFailure::BodyError(why)) => {
            // The listener logs an exhausted budget, and not for every request.
            if let BodyError::TooSlow(_) = why {
                tracing::warn!(
                    reason = %why, "request refused for now: slow body, see `body_timeout` in [server.limits]"
                );
            }
            let answer = refusal(StatusCode::SERVICE_UNAVAILABLE, &why.to_string());
            close_connection(([(header::RETRY_AFTER, AFTER_BODY_ERROR)], answer).into_response())
        }
        Err(BodyFailure::Incomplete) => refusal(StatusCode::BAD_REQUEST, "the body is incomplete"),
    }
}

async fn answer<S: Sink>(
    listener: &Listener<S>,
    route: &RouteEntry,
    client: Client,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    let source = &route.source;
    let request = Verifiable { headers, body: &body, now: SystemTime::now() };
    let received = match source.receive(&request, &body) {
        Err(rejection @ (Rejection::SignatureError(_) | Rejection::ForeignCompany(_))) => {
            return rejected(listener, route, client, headers, &rejection);
        }
        received => received,
    };
    listener.signature_failures.record_valid(client.address, &source.reader.name);
    // Only verified requests count against the rate, so that forged requests cannot use up the rate of the platform.
    if !matches!(received, Ok(Received::Challenge(_)))
        && let Some(Err(after)) = route.rate.as_ref().map(|rate| rate.take())
    {
        tracing::warn!("event refused for now: `events_per_second` of the source is reached");
        return retry_later(Backpressure { after, too_fast: true });
    }
    match received {
        Ok(Received::Event(event)) => match listener.sink.accept(*event).await {
            Ok(SinkOutcome::Recorded) => source.scheme.accepted_response(&request),
            Ok(SinkOutcome::NoSubscriber) => source.scheme.unhandled_response(&request),
            Err(backpressure) => retry_later(backpressure),
        },
        Ok(Received::Challenge(answer)) => {
            source.reader.count(EventOutcome::Challenge);
            tracing::info!("challenge answered");
            answer
        }
        Err(Rejection::NotAnEvent(why)) => unreadable(listener, route, &request, &body, &why).await,
        Err(rejection) => {
            let status = rejection.status(&*source.scheme);
            tracing::warn!(
                %status, reason = %rejection,
                "event belongs to no tenant"
            );
            if status.is_success() {
                source.reader.count(EventOutcome::Unwanted);
                return source.scheme.unhandled_response(&request);
            }
            source.reader.count(EventOutcome::Deferred);
            ([(header::RETRY_AFTER, AFTER_UNREADABLE)], refusal(status, &rejection.to_string())).into_response()
        }
    }
}

/// Stores a verified request whose event cannot be read, and answers it.
async fn unreadable<S: Sink>(
    listener: &Listener<S>,
    route: &RouteEntry,
    request: &Verifiable<'_>,
    body: &Bytes,
    why: &NotAnEvent,
) -> Response {
    let source = &route.source;
    let status = source.scheme.unreadable_status(why);
    tracing::warn!(%status, reason = %why, "cannot read event");
    source.reader.count(EventOutcome::Unreadable);
    let kept = source.reader.unreadable(request.headers, body, why, Some(status.as_u16()));
    if listener.sink.keep_unreadable(kept).await.is_err() {
        tracing::error!("cannot store the unreadable event");
    }
    let answer = refusal(status, &format!("this is not an event: {why}"));
    if status.is_server_error() { ([(header::RETRY_AFTER, AFTER_UNREADABLE)], answer).into_response() } else { answer }
}

fn rejected<S>(
    listener: &Listener<S>,
    route: &RouteEntry,
    client: Client,
    headers: &HeaderMap,
    rejection: &Rejection,
) -> Response {
    let source = &route.source;
    // A flood of forged requests must not flood the log.
    match listener.signature_failures.is_at_limit(client.address, &source.reader.name) {
        false => tracing::warn!(reason = %rejection, "request refused"),
        true => tracing::debug!(reason = %rejection, "request refused"),
    }
    let status = listener.sources.status(rejection, source);
    let answer = refusal(status, &rejection.to_string());
    if status.is_server_error() {
        let is_of_time =
            matches!(rejection, Rejection::SignatureError(signature_error) if signature_error.is_of_time());
        let after = if is_of_time { AFTER_CLOCKS_DIFFER } else { AFTER_SECRETS_CHANGE };
        return ([(header::RETRY_AFTER, after)], answer).into_response();
    }
    // A request with a wrong timestamp has a valid signature.
    if let Rejection::SignatureError(signature_error) = rejection
        && !signature_error.is_of_time()
        && !is_of_local_page(client, headers)
    {
        listener.note_failure(client, source);
    }
    answer
}

/// Returns whether a web page in a browser on this machine sent the request. Any page can do that, so its invalid
/// signatures must not block programs with the same address: a proxy, the local platform of `modhost dev`.
fn is_of_local_page(client: Client, headers: &HeaderMap) -> bool {
    client.address.is_loopback() && (headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site"))
}

fn retry_later(Backpressure { after, too_fast }: Backpressure) -> Response {
    let (status, error) = if too_fast {
        (StatusCode::TOO_MANY_REQUESTS, "events arrive faster than `events_per_second` of this source allows")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the host cannot accept events at the moment")
    };
    ([(header::RETRY_AFTER, whole_seconds(after))], refusal(status, error)).into_response()
}

/// Returns the 2xx answer for platforms that don't define one.
pub(super) fn success() -> Response {
    Json(json!({ "success": true })).into_response()
}

/// A request to a source that is being read, verified or recorded.
struct InProgress<'a> {
    count: &'a AtomicUsize,
    /// The number of other requests at its start.
    others: usize,
}

impl<'a> InProgress<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        Self { count, others: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Listener<S> {
    /// Returns how long requests of a client to a source are refused unread on a busy host, or `None` if they are read.
    fn blocked_for(&self, client: Client, source: &Source) -> Option<Duration> {
        if client.may_be_shared {
            return None;
        }
        let wait = self.signature_failures.retry_after(client.address, &source.reader.name)?;
        tracing::debug!("request dropped: its address sent too many invalid signatures");
        Some(wait)
    }

    fn note_failure(&self, client: Client, source: &Source) {
        if !self.signature_failures.record(client.address, &source.reader.name) {
            return;
        }
        if client.may_be_shared {
            tracing::warn!(
                "many invalid signatures through a proxy: add it to `trusted_proxies` in [server] to tell its clients apart"
            );
        } else {
            tracing::warn!(
                "`max_forgeries` in [server.limits] is reached: while the host is busy, requests from this address get 429"
            );
        }
    }
}

/// Returns the answer for an address with too many invalid signatures. The body is not read and the connection is
/// closed.
fn too_many_failures(wait: Duration) -> Response {
    let answer = refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address had no valid signature");
    close_connection(([(header::RETRY_AFTER, whole_seconds(wait))], answer).into_response())
}

/// Closes the connection after this answer, so that the rest of the body is not read.
fn close_connection(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Returns the content coding of a body, if it has one. Coded bodies are refused: signatures cover the bytes as sent, no
/// platform compresses them, and a kilobyte on the wire may be a gigabyte decompressed.
fn content_coding(headers: &HeaderMap) -> Option<&str> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    codings
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .find(|it| !(it.is_empty() || it.eq_ignore_ascii_case("identity")))
}

/// Rounds up to whole seconds, at least one, so that no retry is early.
fn whole_seconds(time: std::time::Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

fn refusal(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "success": false, "error": error }))).into_response()
}

enum BodyFailure {
    TooLarge,
    BodyError(BodyError),
    Incomplete,
}

/// Reads a whole body of at most `limit` bytes.
async fn read(headers: &HeaderMap, mut body: Body, limit: u64) -> Result<Bytes, BodyFailure> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        // A client that sent `Expect: 100-continue` has not sent the body yet.
        if !headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(BodyFailure::TooLarge);
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    match Limited::new(&mut body, limit).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            drain(body).await;
            Err(BodyFailure::TooLarge)
        }
        Err(error) => Err(cut_short(&*error).map_or(BodyFailure::Incomplete, BodyFailure::BodyError)),
    }
}

/// Returns the [`BodyError`] that caused an error, if there is one.
fn cut_short(error: &(dyn Error + 'static)) -> Option<BodyError> {
    error.downcast_ref().copied().or_else(|| cut_short(error.source()?))
}

/// Reads and discards the rest of a body, within limits. If the host closed the connection while the client is still
/// sending, the connection would be reset before the client reads the answer, and the platform would consider the host
/// unreachable.
async fn drain(body: Body) {
    let mut rest = Limited::new(body, MAX_DRAIN);
    let read = async { while let Some(Ok(_)) = rest.frame().await {} };
    // A client that sends for longer may not receive the answer.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
}
