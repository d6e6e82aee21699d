//! HTTP requests to hosts that the operator allows.
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
//! The key `http` in the module's entry in `modules.toml` lists the allowed hosts: `http = ["api.example.com"]`. The
//! host doesn't load a module that uses this API without that key. Leave credentials to the host, which adds them to
//! the request: `http = [{ host = "api.example.com", headers = { authorization = "Bearer env:API_TOKEN" } }]`.
//!
//! The host buffers the whole response. In a retry, completed requests are answered from the call log and not resent.
//! Every request except GET, HEAD and OPTIONS carries an `Idempotency-Key`. If the host crashes and sends a request
//! twice, a server that supports such keys applies it once.
//!
//! Redirects aren't followed: the module receives the 3xx response.
//!
//! A response with any status is `Ok`. [`Response::ok`] turns a status other than 2xx into an error.

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

/// The name of the call in errors.
const CALL: &str = "http.send";

/// The size of a write, in bytes: the maximum that `blocking-write-and-flush` accepts.
const WRITE_SIZE: usize = 4096;

/// The maximum size of a read, in bytes.
const READ_SIZE: u64 = 64 * 1024;

/// An HTTP request.
#[derive(Clone, Debug)]
#[must_use = "the request is not sent until `send` or `begin` is called"]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Option<Duration>,
    /// An invalid argument to the builder, reported when the request is sent.
    problem: Option<String>,
}

/// A request in flight. Dropping it cancels a request that only reads; any other request is carried out to its end.
#[derive(Debug)]
#[must_use = "call `answer` to wait for the response"]
pub struct Sent {
    answer: FutureIncomingResponse,
    written: Result<(), Error>,
}

/// A complete HTTP response.
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

/// Creates a GET request.
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// Creates a POST request.
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

/// Creates a PUT request.
pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

/// Creates a PATCH request.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new("PATCH", url)
}

/// Creates a DELETE request.
pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

impl Request {
    /// Creates a request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self { method, url, headers: Vec::new(), body: Vec::new(), timeout: None, problem: None }
    }

    /// Adds a header. The host sets the connection headers (`Host`, `Connection`, `Transfer-Encoding` and the like)
    /// itself, and rejects a request that contains one of them.
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body, as bytes or text.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body and the matching `Content-Type`.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.header("content-type", "application/json").body(body),
            Err(error) => {
                self.problem = Some(format!("cannot serialize the body as JSON: {error}"));
                self
            }
        }
    }

    /// Sets a timeout for the start of the response, and for each chunk after it. The operator's limit
    /// (`limits.http.timeout`, 30 s by default) still applies.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request and reads the response.
    ///
    /// # Errors
    ///
    /// If there is no response: [`Denied`](ErrorKind::Denied) if the operator doesn't allow the request,
    /// [`Invalid`](ErrorKind::Invalid) if the request or its response is malformed, [`Timeout`](ErrorKind::Timeout) or
    /// [`Unavailable`](ErrorKind::Unavailable) if a retry may succeed. The delivery's log has the details.
    pub fn send(self) -> Result<Response, Error> {
        self.begin()?.answer()
    }

    /// Sends the request without waiting for the response, so that several requests can be in flight at once.
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
        let body = if self.body.is_empty() { None } else { Some(request.body().map_err(|()| body_rejected())?) };
        let answer = outgoing_handler::handle(request, self.timeout.map(options)).map_err(failed)?;
        // If the host rejects part of the body, its response has the reason.
        let written = body.map_or(Ok(()), |body| write(body, &self.body));
        Ok(Sent { answer, written })
    }

    fn outgoing(&self) -> Result<OutgoingRequest, Error> {
        check_length(&self.headers, self.body.len()).map_err(invalid)?;
        let headers = fields(&self.headers)?;
        let request = OutgoingRequest::new(headers);
        let unusable = |()| invalid(format!("`{} {}` is not an HTTP request", self.method, self.url));
        let (scheme, authority, path) = parts(&self.url).ok_or(()).map_err(unusable)?;
        request.set_method(&method(&self.method)).map_err(unusable)?;
        request.set_scheme(Some(&scheme)).map_err(unusable)?;
        request.set_authority(Some(authority)).map_err(unusable)?;
        request.set_path_with_query(Some(&path)).map_err(unusable)?;
        Ok(request)
    }
}

impl Sent {
    /// Waits for the response and reads it.
    ///
    /// # Errors
    ///
    /// As [`Request::send`].
    pub fn answer(self) -> Result<Response, Error> {
        self.answer.subscribe().block();
        // The response is ready once `block` returns, and can be taken once.
        let missing = || Error::new(CALL, ErrorKind::Unavailable("the host returned no response".into()));
        let answer = self.answer.get().and_then(Result::ok).ok_or_else(missing)?.map_err(failed)?;
        self.written?;
        Response::read(&answer)
    }
}

impl Response {
    /// Returns the status code, such as 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the first header with this name, ignoring case, if its value is UTF-8 text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// Returns all headers, in the order in which they arrived.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Returns the body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Returns the body as text.
    ///
    /// # Errors
    ///
    /// If the body isn't UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.body).map_err(|_| self.unreadable("the response body is not UTF-8"))
    }

    /// Deserializes the body from JSON.
    ///
    /// # Errors
    ///
    /// If the body isn't JSON, or doesn't fit the type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.unreadable(&format!("cannot parse the response body as JSON: {error}")))
    }

    /// Returns the response if its status is 2xx.
    ///
    /// # Errors
    ///
    /// If the status isn't 2xx. The kind of error depends on the status.
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
        let broken = |()| Error::new(CALL, ErrorKind::Unavailable("the host returned no response body".into()));
        let (status, headers) = (answer.status(), answer.headers().entries());
        let incoming = answer.consume().map_err(broken)?;
        let stream = incoming.stream().map_err(broken)?;
        let mut body = Vec::new();
        loop {
            match stream.blocking_read(READ_SIZE) {
                Ok(chunk) => body.extend(chunk),
                Err(StreamError::Closed) => return Ok(Self { status, headers, body }),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(Error::new(CALL, ErrorKind::Unavailable(error.to_debug_string())));
                }
            }
        }
    }
}

/// Rejects a wrong `Content-Length`. The host would reject it, too, but could only return an error code.
fn check_length(headers: &[(String, Vec<u8>)], length: usize) -> Result<(), String> {
    for (_, value) in headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        let declared = String::from_utf8_lossy(value);
        if declared.trim().parse() != Ok(length) {
            return Err(format!(
                "the request's Content-Length is `{declared}`, but its body has {length} bytes; omit the header, the host \
                 sets it"
            ));
        }
    }
    Ok(())
}

/// Converts the headers to those of the bindings.
fn fields(headers: &[(String, Vec<u8>)]) -> Result<Fields, Error> {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value).map_err(|error| {
            let why = match error {
                HeaderError::Forbidden => "is set by the host".to_owned(),
                HeaderError::InvalidSyntax => "has an invalid name or value".to_owned(),
                error => format!("was rejected: {error}"),
            };
            invalid(format!("cannot send a header of the request: `{}` {why}", name.escape_default()))
        })?;
    }
    Ok(fields)
}

/// Splits a URL into scheme, host with port, and path with query. Returns `None` if it isn't an HTTP URL. Fragments are
/// dropped.
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
    // A host that doesn't support these options applies its own limits.
    let _ = options.set_first_byte_timeout(nanoseconds);
    let _ = options.set_between_bytes_timeout(nanoseconds);
    options
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let stream = body.write().map_err(|()| body_rejected())?;
    for chunk in bytes.chunks(WRITE_SIZE) {
        stream.blocking_write_and_flush(chunk).map_err(|_| body_rejected())?;
    }
    // The stream belongs to the body and must be dropped before the body is finished.
    drop(stream);
    OutgoingBody::finish(body, None).map_err(failed)
}

fn body_rejected() -> Error {
    Error::new(CALL, ErrorKind::Unavailable("the host did not accept the request body".into()))
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn invalid(why: String) -> Error {
    Error::new(CALL, ErrorKind::Invalid(why))
}

/// Maps an error code of `wasi:http` to the kind of error.
fn failed(code: ErrorCode) -> Error {
    let name = code.to_string();
    let kind = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            ErrorKind::Denied(format!("{name}; the delivery's log shows what to add to `http` in modules.toml"))
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
    fn splits_a_url() {
        let split =
            |url| parts(url).map(|(scheme, authority, path)| (matches!(scheme, Scheme::Https), authority, path));
        assert_eq!(split("https://a.test/b?c#d"), Some((true, "a.test", "/b?c".into())));
        assert_eq!(split("HTTP://a.test:81"), Some((false, "a.test:81", "/".into())));
        assert_eq!(split("https://a.test?c"), Some((true, "a.test", "/?c".into())));
        for wrong in ["a.test", "ftp://a.test", "https:///b", ""] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rejects_a_wrong_content_length() {
        let check = |name: &str, value: &str| check_length(&[(name.into(), value.into())], 5);
        assert_eq!(check("Content-Length", "5"), Ok(()));
        assert_eq!(check("x-length", "7"), Ok(()));
        for wrong in ["4", "50", "", "-5", "five"] {
            let why = check("content-length", wrong).unwrap_err();
            assert!(why.starts_with(&format!("the request's Content-Length is `{wrong}`, but its body has 5 bytes")));
        }
    }

    #[test]
    fn status_determines_the_kind_of_error() {
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
