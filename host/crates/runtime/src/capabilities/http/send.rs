//! Sends one HTTP request and reads its answer to the end, within the module's limits.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, request};
use reqwest::Response;
use tokio::time::timeout;
use url::Url;
use wasmtime_wasi_http::RequestOptions;

use super::Sender;
use super::failure::{Failure, HttpErrorCode};
use super::guarded_resolver::{ProhibitedAddress, Unresolved, check_address};
use super::policy::{HttpGrant, describe, line};
use super::record::Answered;
use crate::capabilities::Delivery;
use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_core::memory_budget::MemoryBudget;

/// Maximum size of the headers of an answer, in bytes.
const MAX_HEADERS: usize = 64 * 1024;

/// The header by which a server that supports it detects that a request is repeated.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request of the guest.
#[derive(Clone)]
pub(super) struct Request {
    /// Method and headers.
    pub head: request::Parts,
    /// The URL, or the invalid text in its place.
    pub url: Result<Url, String>,
    /// The `Content-Length` that the guest set, in bytes.
    pub content_length: Option<u64>,
    /// The body; set once it is complete.
    pub body: Bytes,
    /// Whether this is a dry run: nothing is sent, so an answer that isn't recorded is an error.
    pub dry_run: bool,
    timeouts: Timeouts,
}

/// The timeouts that the guest set.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    /// For the head of the answer, including the connection.
    head: Option<Duration>,
    /// For each piece of its body.
    piece: Option<Duration>,
}

impl Timeouts {
    pub fn of(options: Option<RequestOptions>) -> Self {
        let Some(options) = options else { return Self { head: None, piece: None } };
        // A connection may be reused, so the two timeouts are one.
        let connect = options.connect_timeout.unwrap_or_default();
        let head = options.first_byte_timeout.map(|first| connect.saturating_add(first));
        Self { head, piece: options.between_bytes_timeout }
    }
}

impl Request {
    pub fn new(mut head: request::Parts, timeouts: Timeouts) -> Self {
        let written = head.uri.to_string();
        // User information in a URL would be another place for credentials, and can mislead readers about the host.
        let url = Url::parse(&written).ok().filter(|url| url.username().is_empty() && url.password().is_none());
        // The HTTP client sets it from the body.
        let content_length =
            head.headers.remove(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { head, url: url.ok_or(written), content_length, body: Bytes::new(), timeouts, dry_run: false }
    }

    /// Returns the request as logs and errors show it.
    pub fn describe(&self) -> String {
        match &self.url {
            Ok(url) => describe(&self.head.method, url),
            Err(_) => self.head.method.to_string(),
        }
    }
}

/// Sends a request and reads its answer.
pub(super) async fn send(
    sender: &Sender,
    delivery: &Delivery,
    request: Request,
    idempotency_key: &str,
) -> Result<Answered, Failure> {
    let started = Instant::now();
    let description = request.describe();
    let Ok(url) = request.url.clone() else {
        let why = "its URL is invalid or contains a user: put credentials into headers";
        return Err(Failure::new(HttpErrorCode::RequestUri, why).with_request(&description));
    };
    let grant = sender.grants.find(&request.head.method, &url)?;
    let (limits, memory) = (delivery.limits(), delivery.memory().clone());
    let sent = Sending { limits, memory, grant, description: &description, started };
    check_address(url.host(), grant.private).map_err(|address| sent.prohibited(&address))?;
    if request.dry_run {
        let why = "no answer is recorded, and a dry run sends nothing";
        return Err(Failure::new(HttpErrorCode::DestinationUnavailable, why).with_request(&description));
    }
    let clients = sender.clients.of(&delivery.event.tenant);
    let client = clients.for_grant(grant)?;
    let timeouts = request.timeouts;
    let mut outgoing = reqwest::Request::new(request.head.method.clone(), url);
    *outgoing.headers_mut() = sent.headers(request.head, idempotency_key)?;
    // An empty body counts too: a POST must declare its length.
    if !request.body.is_empty() || !outgoing.method().is_safe() {
        *outgoing.body_mut() = Some(request.body.into());
    }
    let answer = sent.head(client.execute(outgoing), timeouts.head).await?;
    sent.answer(answer, timeouts.piece).await
}

/// A request in flight.
struct Sending<'a> {
    limits: &'a Limits,
    memory: MemoryBudget,
    grant: &'a HttpGrant,
    description: &'a str,
    started: Instant,
}

impl Sending<'_> {
    /// Returns the guest's headers with those that the host adds.
    fn headers(&self, head: request::Parts, idempotency_key: &str) -> Result<HeaderMap, Failure> {
        let mut headers = head.headers;
        if !head.method.is_safe() && !headers.contains_key(IDEMPOTENCY_KEY) {
            let key = HeaderValue::from_str(idempotency_key)
                .map_err(|_| self.failed(HttpErrorCode::Internal, "its idempotency key is not a valid header value"))?;
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        for (name, value) in &self.grant.headers {
            headers.insert(name, value.clone());
        }
        Ok(headers)
    }

    /// Waits for the head of the answer.
    async fn head(
        &self,
        answer: impl Future<Output = reqwest::Result<Response>>,
        wanted: Option<Duration>,
    ) -> Result<Response, Failure> {
        let limit = self.remaining().min(wanted.unwrap_or(Duration::MAX));
        let answer = timeout(limit, answer).await;
        let answer =
            answer.map_err(|_| self.timeout(limit)).and_then(|it| it.map_err(|error| self.client_error(error)))?;
        let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
        let headers: usize = answer.headers().iter().map(size).sum();
        if headers > MAX_HEADERS {
            let why = format!("the headers of the answer have {headers} bytes, and may have {MAX_HEADERS}");
            return Err(self.failed(HttpErrorCode::AnswerHeaders, &why));
        }
        Ok(answer)
    }

    /// Reads the answer to its end. It counts as memory while it arrives.
    async fn answer(&self, mut answer: Response, wanted: Option<Duration>) -> Result<Answered, Failure> {
        let limit = self.limits.amount(Resource::HttpAnswer);
        let (mut body, mut held) = (Vec::new(), self.memory.hold());
        if answer.content_length().is_some_and(|length| length > limit) {
            return Err(self.too_large());
        }
        loop {
            let wait = self.remaining().min(wanted.unwrap_or(Duration::MAX));
            let piece = timeout(wait, answer.chunk()).await;
            match piece.map_err(|_| self.timeout(wait))?.map_err(|error| self.client_error(error).incomplete())? {
                None => return Ok(Answered::new(answer.status(), answer.headers(), body)),
                Some(piece) if (body.len() + piece.len()) as u64 > limit => return Err(self.too_large()),
                Some(piece) => {
                    held.grow(piece.len()).map_err(|limit| self.no_memory(limit))?;
                    body.extend_from_slice(&piece);
                }
            }
        }
    }

    fn remaining(&self) -> Duration {
        self.limits.time(Resource::HttpTimeout).saturating_sub(self.started.elapsed())
    }

    fn failed(&self, code: HttpErrorCode, why: &str) -> Failure {
        Failure::new(code, why).with_request(self.description)
    }

    fn too_large(&self) -> Failure {
        self.failed(HttpErrorCode::AnswerBodySize, &self.limits.reached(Resource::HttpAnswer, None).to_string())
    }

    fn no_memory(&self, limit: LimitReached) -> Failure {
        self.failed(HttpErrorCode::AnswerIncomplete, &format!("the answer was not read: limit reached: {limit}"))
    }

    /// Returns the failure for a timeout: the module's time limit, or a timeout that the guest set.
    fn timeout(&self, waited: Duration) -> Failure {
        if self.remaining().is_zero() {
            let why = self.limits.reached(Resource::HttpTimeout, None).to_string();
            return self.failed(HttpErrorCode::AnswerTimeout, &why);
        }
        let waited = humantime::format_duration(waited);
        self.failed(
            HttpErrorCode::ReadTimeout,
            &format!("no data received for {waited}, the timeout that the module set"),
        )
    }

    fn prohibited(&self, address: &ProhibitedAddress) -> Failure {
        let grant = &self.grant;
        let advice = if grant.private {
            "no name may resolve to it: if this is intended, add the address itself to `http`".to_owned()
        } else {
            format!(
                "if this is intended, add private = true to the entry \"{}\" of `http` ({})",
                grant.origin,
                line(&grant.location)
            )
        };
        self.failed(HttpErrorCode::DestinationProhibited, &format!("its host is at {address}; {advice}"))
    }

    /// Maps an error of the HTTP client.
    fn client_error(&self, error: reqwest::Error) -> Failure {
        // The message already has the URL without its query, which may contain a credential.
        let error = error.without_url();
        if let Some(address) = cause::<ProhibitedAddress>(&error) {
            return self.prohibited(address);
        }
        if let Some(unresolved) = cause::<Unresolved>(&error) {
            return self.failed(HttpErrorCode::DnsError, &unresolved.to_string());
        }
        if error.is_timeout() {
            return self.failed(HttpErrorCode::ConnectionTimeout, "the connection timed out");
        }
        if let Some(error) = cause::<rustls::Error>(&error) {
            let code = match error {
                rustls::Error::InvalidCertificate(_) => HttpErrorCode::TlsCertificate,
                _ => HttpErrorCode::TlsProtocol,
            };
            return self.failed(code, &format!("TLS failed: {error}"));
        }
        if let Some(error) = cause::<io::Error>(&error) {
            return self.failed(code_of(error.kind()), &format!("the connection failed: {error}"));
        }
        if let Some(error) = cause::<hyper::Error>(&error) {
            let code = match error {
                it if it.is_incomplete_message() => HttpErrorCode::AnswerIncomplete,
                it if it.is_parse_too_large() => HttpErrorCode::AnswerHeaders,
                it if it.is_closed() || it.is_canceled() => HttpErrorCode::ConnectionTerminated,
                _ => HttpErrorCode::Protocol,
            };
            return self.failed(code, &format!("the answer can't be read: {error}"));
        }
        let code = if error.is_connect() { HttpErrorCode::DestinationUnavailable } else { HttpErrorCode::Protocol };
        self.failed(code, &error.to_string())
    }
}

fn code_of(kind: io::ErrorKind) -> HttpErrorCode {
    match kind {
        io::ErrorKind::ConnectionRefused => HttpErrorCode::ConnectionRefused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => HttpErrorCode::ConnectionTerminated,
        io::ErrorKind::TimedOut => HttpErrorCode::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => HttpErrorCode::DestinationUnavailable,
        _ => HttpErrorCode::Protocol,
    }
}

/// Returns the cause of this type, if the error has one.
fn cause<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Returns an error and its causes. An `io::Error` that wraps another error, such as one of TLS, doesn't return it as
/// its source, so it is unwrapped here.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inside) => Some(inside as &(dyn Error + 'static)),
        None => error.source(),
    })
}
