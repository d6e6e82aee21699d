//! HTTP requests, to the hosts the operator allows.
//!
//! ```no_run
//! use modhost_sdk::{http, prelude::*};
//!
//! # fn example() -> Result<()> {
//! #[derive(serde::Deserialize)]
//! struct Weather {
//!     summary: String,
//! }
//!
//! let weather: Weather = http::get("https://api.example.com/weather?place=Zurich").send()?.ok()?.json()?;
//! # Ok(())
//! # }
//! ```
//!
//! Where requests may go is `http` of the module in `modules.toml`: `http = ["api.example.com"]`. A module that uses this and
//! has no such line isn't loaded; one that doesn't use it needs none. A credential is best left to the host, which adds it to
//! the request: `http = [{ host = "api.example.com", headers = { authorization = "Bearer env:API_TOKEN" } }]`.
//!
//! An answer is read whole before you have it. When a delivery starts again, requests that were answered are answered as they
//! were then, without being sent. Every request but GET, HEAD and OPTIONS carries an `Idempotency-Key`, so that a server that
//! knows such keys does once what was sent twice because the host was killed in between.
//!
//! Redirects aren't followed: the answer is the 3xx itself.
//!
//! Any answer is a success here, whatever its status; [`Response::ok`] makes an error of those that aren't 2xx.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings_http::wasi::http::outgoing_handler;
use crate::bindings_http::wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, HeaderError, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme,
};
use crate::bindings_http::wasi::io::streams::StreamError;
use crate::error::{Error, ErrorKind};

/// The call, as errors name it.
const CALL: &str = "http.send";

/// How much is written at once, in bytes: `blocking-write-and-flush` takes no more.
const PIECE: usize = 4096;

/// How much is read at once, in bytes.
const READ: u64 = 64 * 1024;

/// A request to be sent.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Option<Duration>,
    /// What was wrong with what it was given; told when it is sent.
    problem: Option<String>,
}

/// A request that is under way. Dropped, it is given up if it only reads, and carried to its end otherwise.
#[derive(Debug)]
#[must_use = "the answer is still to be waited for"]
pub struct Sent {
    answer: FutureIncomingResponse,
    written: Result<(), Error>,
}

/// An answer, read whole.
///
/// ```no_run
/// # use modhost_sdk::{http, prelude::*};
/// # fn example() -> Result<()> {
/// let page = http::get("https://example.com/").send()?;
/// if page.status() == 404 {
///     messages::reply("There is no such page.").complete()?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// A GET request.
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// A POST request.
///
/// ```no_run
/// # use modhost_sdk::{http, prelude::*};
/// # fn example() -> Result<()> {
/// let order = json!({ "item": "A-17", "count": 2 });
/// http::post("https://shop.example.com/orders").json(&order).send()?.ok()?;
/// # Ok(())
/// # }
/// ```
pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

/// A PUT request.
pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

/// A PATCH request.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new("PATCH", url)
}

/// A DELETE request.
pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

impl Request {
    /// A request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self { method, url, headers: Vec::new(), body: Vec::new(), timeout: None, problem: None }
    }

    /// With this header. Those of the connection (`Host`, `Connection`, `Transfer-Encoding` and the like) are the host's to
    /// write: with one of them the request is refused.
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// With these bytes, or this text.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With this as JSON, and with a `Content-Type` that says so.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.header("content-type", "application/json").body(body),
            Err(error) => {
                self.problem = Some(format!("the body can't be written as JSON: {error}"));
                self
            }
        }
    }

    /// Waits no longer than this: for the beginning of the answer, and then for each piece of it. The operator's limit
    /// (`limits.http.timeout`, 30 s where it isn't set) holds all the same.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it, and reads the answer.
    ///
    /// An error means that there is no answer: of kind [`Denied`](ErrorKind::Denied) if the operator doesn't allow the
    /// request, [`Invalid`](ErrorKind::Invalid) if it, or its answer, can't be; [`Timeout`](ErrorKind::Timeout) and
    /// [`Unavailable`](ErrorKind::Unavailable) may pass. The delivery's log says more.
    pub fn send(self) -> Result<Response, Error> {
        self.begin()?.answer()
    }

    /// Sends it, and waits for the answer later: several requests can be under way at once.
    ///
    /// ```no_run
    /// # use modhost_sdk::{http, prelude::*};
    /// # fn example() -> Result<()> {
    /// let (one, two) = (http::get("https://one.example.com/").begin()?, http::get("https://two.example.com/").begin()?);
    /// let (one, two) = (one.answer()?, two.answer()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin(self) -> Result<Sent, Error> {
        if let Some(problem) = self.problem {
            return Err(invalid(problem));
        }
        let request = self.outgoing()?;
        let body = if self.body.is_empty() { None } else { Some(request.body().map_err(|()| no_body())?) };
        let answer = outgoing_handler::handle(request, self.timeout.map(options)).map_err(failed)?;
        // A host that doesn't take the whole body says why in its answer.
        let written = body.map_or(Ok(()), |body| write(body, &self.body));
        Ok(Sent { answer, written })
    }

    fn outgoing(&self) -> Result<OutgoingRequest, Error> {
        check_length(&self.headers, self.body.len()).map_err(invalid)?;
        let headers = fields(&self.headers)?;
        let request = OutgoingRequest::new(headers);
        let unusable = |()| invalid(format!("`{} {}` is no request over HTTP", self.method, self.url));
        let (scheme, authority, path) = parts(&self.url).ok_or(()).map_err(unusable)?;
        request.set_method(&method(&self.method)).map_err(unusable)?;
        request.set_scheme(Some(&scheme)).map_err(unusable)?;
        request.set_authority(Some(authority)).map_err(unusable)?;
        request.set_path_with_query(Some(&path)).map_err(unusable)?;
        Ok(request)
    }
}

impl Sent {
    /// Waits for the answer and reads it; see [`Request::send`] for the errors.
    pub fn answer(self) -> Result<Response, Error> {
        self.answer.subscribe().block();
        // There once `block` returns, and taken once.
        let gone = || Error::new(CALL, ErrorKind::Unavailable("the host has no answer".into()));
        let answer = self.answer.get().and_then(Result::ok).ok_or_else(gone)?.map_err(failed)?;
        self.written?;
        Response::read(&answer)
    }
}

impl Response {
    /// The status, 200 for example.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of a name, in whatever case, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// All headers, in the order they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; an error if it is something else than UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.body).map_err(|_| self.unreadable("the answer is no text"))
    }

    /// The body, read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.unreadable(&format!("the answer isn't the JSON that was expected: {error}")))
    }

    /// The answer if its status is 2xx, and an error otherwise, told apart by what can be done about it.
    pub fn ok(self) -> Result<Self, Error> {
        let message = || format!("status {}", self.status);
        let kind = match self.status {
            200..=299 => return Ok(self),
            401 | 403 => ErrorKind::Denied(message()),
            404 | 410 => ErrorKind::NotFound(message()),
            408 | 504 => ErrorKind::Timeout,
            429 => ErrorKind::RateLimited(self.header("retry-after").and_then(seconds)),
            500.. => ErrorKind::Unavailable(message()),
            _ => ErrorKind::Invalid(message()),
        };
        Err(Error::new(CALL, kind))
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::new(CALL, ErrorKind::Invalid(format!("{why} (status {})", self.status)))
    }

    fn read(answer: &IncomingResponse) -> Result<Self, Error> {
        let broken = |()| Error::new(CALL, ErrorKind::Unavailable("the host keeps the answer's body back".into()));
        let (status, headers) = (answer.status(), answer.headers().entries());
        let incoming = answer.consume().map_err(broken)?;
        let stream = incoming.stream().map_err(broken)?;
        let mut body = Vec::new();
        loop {
            match stream.blocking_read(READ) {
                Ok(piece) => body.extend(piece),
                Err(StreamError::Closed) => return Ok(Self { status, headers, body }),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(Error::new(CALL, ErrorKind::Unavailable(error.to_debug_string())));
                }
            }
        }
    }
}

/// Refuses a `Content-Length` that isn't that of the body: the host would, too, but could only give a code for it.
fn check_length(headers: &[(String, Vec<u8>)], length: usize) -> Result<(), String> {
    for (_, value) in headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        let told = String::from_utf8_lossy(value);
        if told.trim().parse() != Ok(length) {
            return Err(format!(
                "the Content-Length of the request is `{told}`, but its body has {length} bytes; leave the header out, the \
                 host writes it"
            ));
        }
    }
    Ok(())
}

/// The headers as the host takes them.
fn fields(headers: &[(String, Vec<u8>)]) -> Result<Fields, Error> {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value).map_err(|error| {
            let why = match error {
                HeaderError::Forbidden => "is the host's to write".to_owned(),
                HeaderError::InvalidSyntax => "has a name or a value that can't stand in a header".to_owned(),
                error => format!("can't be sent: {error}"),
            };
            invalid(format!("a header of the request can't be sent: `{}` {why}", name.escape_default()))
        })?;
    }
    Ok(fields)
}

/// Scheme, host with port, and path with query; none of an address that isn't one of HTTP. A fragment is never sent.
fn parts(url: &str) -> Option<(Scheme, &str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return None,
    };
    let rest = rest.split('#').next()?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    if authority.is_empty() { None } else { Some((scheme, authority, format!("{slash}{path}"))) }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "PATCH" => Method::Patch,
        "OPTIONS" => Method::Options,
        other => Method::Other(other.to_owned()),
    }
}

fn options(timeout: Duration) -> RequestOptions {
    let (options, nanoseconds) = (RequestOptions::new(), u64::try_from(timeout.as_nanos()).ok());
    // A host that knows no such options has limits of its own.
    let _ = options.set_first_byte_timeout(nanoseconds);
    let _ = options.set_between_bytes_timeout(nanoseconds);
    options
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let stream = body.write().map_err(|()| no_body())?;
    for piece in bytes.chunks(PIECE) {
        stream.blocking_write_and_flush(piece).map_err(|_| no_body())?;
    }
    // It belongs to the body, and has to be gone before that is finished.
    drop(stream);
    OutgoingBody::finish(body, None).map_err(failed)
}

fn no_body() -> Error {
    Error::new(CALL, ErrorKind::Unavailable("the host takes no body".into()))
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn invalid(why: String) -> Error {
    Error::new(CALL, ErrorKind::Invalid(why))
}

/// What a code of the standard means for a module: what can be done about it.
fn failed(code: ErrorCode) -> Error {
    let name = code.to_string();
    let kind = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            ErrorKind::Denied(format!("{name}; the delivery's log says what to add to `http` in modules.toml"))
        }
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => ErrorKind::Timeout,
        ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTerminated
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_)
        | ErrorCode::HttpResponseIncomplete
        | ErrorCode::HttpProtocolError
        | ErrorCode::InternalError(_) => ErrorKind::Unavailable(name),
        _ => ErrorKind::Invalid(name),
    };
    Error::new(CALL, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let taken =
            |url| parts(url).map(|(scheme, authority, path)| (matches!(scheme, Scheme::Https), authority, path));
        assert_eq!(taken("https://a.test/b?c#d"), Some((true, "a.test", "/b?c".into())));
        assert_eq!(taken("HTTP://a.test:81"), Some((false, "a.test:81", "/".into())));
        assert_eq!(taken("https://a.test?c"), Some((true, "a.test", "/?c".into())));
        for wrong in ["a.test", "ftp://a.test", "https:///b", ""] {
            assert_eq!(taken(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_length_that_is_not_the_bodys_is_named() {
        let check = |name: &str, value: &str| check_length(&[(name.into(), value.into())], 5);
        assert_eq!(check("Content-Length", "5"), Ok(()));
        assert_eq!(check("x-length", "7"), Ok(()));
        for wrong in ["4", "50", "", "-5", "five"] {
            let why = check("content-length", wrong).unwrap_err();
            assert!(
                why.starts_with(&format!("the Content-Length of the request is `{wrong}`, but its body has 5 bytes"))
            );
        }
    }

    #[test]
    fn a_status_says_what_can_be_done() {
        let kind = |status| {
            let headers = vec![("Retry-After".to_owned(), b"7".to_vec())];
            Response { status, headers, body: Vec::new() }.ok().map_err(|error| error.kind().clone())
        };
        assert!(kind(204).is_ok());
        assert_eq!(kind(302), Err(ErrorKind::Invalid("status 302".into())));
        assert_eq!(kind(401), Err(ErrorKind::Denied("status 401".into())));
        assert_eq!(kind(404), Err(ErrorKind::NotFound("status 404".into())));
        assert_eq!(kind(429), Err(ErrorKind::RateLimited(Some(Duration::from_secs(7)))));
        assert_eq!(kind(503), Err(ErrorKind::Unavailable("status 503".into())));
    }
}
