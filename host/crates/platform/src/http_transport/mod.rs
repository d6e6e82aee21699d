//! JSON over HTTP for all platforms: executes a call with its attempts, the delays between them, and limits of time and
//! size.
//!
//! A request is repeated only if that can't execute it twice; see [`retry`].

mod failure;
mod http_clients;
mod lookups;
mod retry;
mod streaming_response;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use url::Url;

use self::failure::{ErrorText, Failure, presentable, quote, redacted};
use super::chat_completion::{self, Fault, failure};
use super::{CallError, Caller, Completion, ErrorKind, IdempotencyKey, Result};
use modhost_core::backoff::RetryPolicy;
use modhost_core::json::{Fields, Value};
use modhost_core::memory_budget::{HeldMemory, MemoryBudget};
use modhost_core::retry_after::parse_retry_after;
use modhost_core::secret::Secret;

pub use http_clients::{HttpClients, TenantHttpClients, client_builder, http_client};
pub use lookups::{LookUp, TenantLookups};
pub(super) use retry::Repeatability;
pub(super) use streaming_response::StreamingResponse;

/// The largest accepted answer, in bytes. A thousand long passages fit.
pub(super) const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// The number of bytes read of an error answer. The message is at its beginning.
const ERROR_LIMIT: usize = 64 * 1024;

/// The reason why the client of a platform can't be created.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is not a valid base for paths, or contains a secret.
    #[error("api_base {problem}; it should look like {example}")]
    ApiBase {
        /// The problem with the address.
        problem: &'static str,
        /// A valid address.
        example: &'static str,
    },
    /// A setting is not a valid header value. The error doesn't contain the value.
    #[error("{0} is empty or contains a control character, often a line break at its end")]
    Header(&'static str),
    /// TLS can't be set up.
    #[error("TLS can't be set up ({0}); are the system's CA certificates installed?")]
    Tls(rustls::Error),
    /// The HTTP client can't be created.
    #[error("the HTTP client can't be created: {0}")]
    HttpClient(reqwest::Error),
}

/// A request with its retry behavior and time limit.
pub(super) struct Call {
    method: Method,
    /// The encoded path below `api_base`. Errors and logs name the call by it.
    path: String,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    idempotency_key: Option<IdempotencyKey>,
    memory: MemoryBudget,
    body: Option<Bytes>,
    repeat: Repeatability,
    started: Instant,
    limit: Duration,
}

impl Call {
    /// Creates a call that must end within `limit` from now, including attempts and delays.
    pub(super) fn new(method: Method, path: impl Into<String>, repeat: Repeatability, limit: Duration) -> Self {
        let (query, headers, started) = (Vec::new(), HeaderMap::new(), Instant::now());
        let (path, idempotency_key, memory, body) = (path.into(), None, MemoryBudget::default(), None);
        Self { method, path, query, headers, idempotency_key, memory, body, repeat, started, limit }
    }

    /// Sets the body to this JSON.
    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|error| {
            CallError::new(ErrorKind::Invalid, format!("{self}: can't be written as JSON: {error}"))
        })?;
        self.body = Some(body.into());
        Ok(self)
    }

    /// Replaces the query parameters.
    pub(super) fn set_query(&mut self, query: Vec<(&'static str, String)>) {
        self.query = query;
    }

    /// Adds a header to those of every call. `what` names the value in errors.
    pub(super) fn header(mut self, name: HeaderName, what: &str, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value).map_err(|_| {
            CallError::new(ErrorKind::Invalid, format!("{self}: the {what} is not a valid header value"))
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Sets what doesn't depend on the platform: the idempotency key, by which it recognizes a repeated call, and the
    /// budget that the answer counts against.
    pub(super) fn of_caller(mut self, caller: &Caller) -> Self {
        self.idempotency_key.clone_from(&caller.idempotency_key);
        self.memory = caller.memory.clone();
        self
    }

    fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    /// Runs an attempt within the remaining time of the call.
    async fn with_deadline<T>(
        &self,
        attempt: impl Future<Output = std::result::Result<T, Failure>>,
    ) -> std::result::Result<T, Failure> {
        tokio::time::timeout(self.remaining(), attempt).await.unwrap_or(Err(Failure::TimedOut))
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A successful answer of the platform.
pub(super) struct Answer {
    status: StatusCode,
    /// Counts against the caller's budget until it is dropped.
    body: Bytes,
}

/// The connection to a platform: address, credentials and retry policy.
#[derive(Debug)]
pub(super) struct HttpTransport {
    /// The HTTP clients of the tenant.
    pub(super) clients: HttpClients,
    /// The base address of all paths, checked by [`check_base`].
    pub(super) api_base: Url,
    /// The headers of every call, including the credentials.
    pub(super) headers: HeaderMap,
    /// The API key, which is redacted in errors.
    pub(super) key: Secret,
    /// The retry policy.
    pub(super) retry: RetryPolicy,
    /// The header of the idempotency key. `None` sends no key.
    pub(super) idempotency_header: Option<HeaderName>,
}

impl HttpTransport {
    /// Executes a call. Retries where that is safe and may help.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer> {
        let headers = self.headers_of(call)?;
        let mut attempt = 1;
        loop {
            let whole = async {
                let _connection = self.clients.connection();
                whole(call, self.attempt(&self.clients.calls, &headers, call, attempt).await?, Bytes::new()).await
            };
            match call.with_deadline(whole).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.wait(call, attempt, &failure).await?,
            }
            attempt += 1;
        }
    }

    /// Executes a call whose answer is streamed. Retries like [`HttpTransport::send`], until the answer starts.
    pub(super) async fn open(self: &Arc<Self>, call: Call) -> Result<StreamingResponse> {
        let headers = self.headers_of(&call)?;
        let mut attempt = 1;
        loop {
            let connection = self.clients.connection();
            match call.with_deadline(self.attempt(&self.clients.streams, &headers, &call, attempt)).await {
                Ok(response) => return Ok(StreamingResponse::new(self.clone(), call, response, connection)),
                Err(failure) => {
                    drop(connection);
                    self.wait(&call, attempt, &failure).await?;
                }
            }
            attempt += 1;
        }
    }

    /// Waits for the next attempt. Returns the error if there is none after this failure.
    async fn wait(&self, call: &Call, attempt: u32, failure: &Failure) -> Result<()> {
        match retry::delay(&self.retry, call.repeat, attempt, failure, call.remaining()) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(self.failed(call, attempt, failure)),
        }
        Ok(())
    }

    /// Checks an answer whose content isn't used. Many servers send no body, but an error or a proxy's page is not a
    /// success.
    pub(super) fn check_done(&self, call: &Call, answer: &Answer) -> Result<()> {
        match answer.body.trim_ascii_start().first() {
            Some(b'{') => self.decode(call, answer, |_| Ok(())),
            Some(b'<') => Err(self.unexpected(call, answer, "is a web page instead of JSON")),
            _ => Ok(()),
        }
    }

    /// Parses an answer, unless it is an error with a success status. `read` returns the reason if it can't parse it.
    pub(super) fn decode<T>(
        &self,
        call: &Call,
        answer: &Answer,
        read: impl FnOnce(Value<'_>) -> std::result::Result<T, &'static str>,
    ) -> Result<T> {
        let failed = self.decode_any(call, answer, |value| {
            // A created object has an id and may have an error field, too: a message whose answer failed.
            let is_made = Fields::of(value, &["id"]).is_some_and(|it| it.get("id").is_some());
            if is_made { Ok((None, read(value))) } else { Ok((failure(value), read(value))) }
        });
        match failed? {
            (Some(status), _) => {
                let about = format!("{call}: {}, but the answer is an error", answer.status);
                Err(self.fault(&about, &Fault::Failed { status, found: answer.body.clone() }))
            }
            (None, read) => read.map_err(|why| self.unreadable(call, answer, why)),
        }
    }

    /// Parses an answer without checking for errors. An empty body counts as an empty object, as in the official Python
    /// SDK.
    pub(super) fn decode_any<T>(
        &self,
        call: &Call,
        answer: &Answer,
        read: impl FnOnce(Value<'_>) -> std::result::Result<T, &'static str>,
    ) -> Result<T> {
        let body = answer.body.trim_ascii();
        let body = if body.is_empty() { b"{}" } else { body };
        let value = Value::read(body).map_err(|error| self.unreadable(call, answer, &error.to_string()))?;
        read(value).map_err(|why| self.unreadable(call, answer, why))
    }

    /// Parses a completion in OpenAI's format.
    pub(super) fn completion(&self, call: &Call, answer: &Answer) -> Result<Completion> {
        chat_completion::completion(&answer.body).map_err(|fault| self.completion_error(call, answer, &fault))
    }

    /// Returns the error for a successful answer without a valid completion.
    pub(super) fn completion_error(&self, call: &Call, answer: &Answer, fault: &Fault) -> CallError {
        let about = format!("{call}: {}, but the answer", answer.status);
        match fault {
            Fault::Unreadable { why, .. } => self.unreadable(call, answer, why),
            Fault::Failed { .. } => self.fault(&format!("{about} is an error"), fault),
            fault => self.fault(&about, fault),
        }
    }

    /// Returns the error for an invalid answer. `about` is the beginning of its message.
    fn fault(&self, about: &str, fault: &Fault) -> CallError {
        if let Fault::Failed { status, found } = fault {
            let ErrorText { message, retryable } = ErrorText::read(&redacted(found, self.key.expose()));
            let kind = match *status {
                Some(status) => {
                    Failure::Refused { status, retry_after: None, retryable, message: String::new() }.kind()
                }
                None => ErrorKind::Unavailable,
            };
            return self.error(kind, &format!("{about}: {message}"));
        }
        let kind = match fault {
            Fault::OnlyToolCalls(_) => ErrorKind::Unsupported,
            _ => ErrorKind::Unavailable,
        };
        self.error(kind, &format!("{about} {}", fault.describe()))
    }

    /// Returns the error for a successful answer that can't be parsed.
    pub(super) fn unreadable(&self, call: &Call, answer: &Answer, why: &str) -> CallError {
        self.unexpected(call, answer, &format!("can't be understood ({why})"))
    }

    /// Returns the error for an unexpected successful answer. `what` completes the sentence "the answer …".
    pub(super) fn unexpected(&self, call: &Call, answer: &Answer, what: &str) -> CallError {
        let Answer { status, body } = answer;
        let quoted = quote(&redacted(body, self.key.expose()));
        self.error(ErrorKind::Unavailable, &format!("{call}: {status}, but the answer {what}: {quoted}"))
    }

    /// Sends the request once. Returns a successful response whose body has not been read.
    async fn attempt(
        &self,
        client: &reqwest::Client,
        headers: &HeaderMap,
        call: &Call,
        attempt: u32,
    ) -> std::result::Result<reqwest::Response, Failure> {
        let started = Instant::now();
        let mut request = client.request(call.method.clone(), self.url(call)).headers(headers.clone());
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body.clone());
        }
        let answered = request.send().await;
        let status = answered.as_ref().ok().map(|response| response.status().as_u16());
        let elapsed = started.elapsed();
        tracing::debug!(method = %call.method, path = %call.path, attempt, status, ?elapsed, "called the platform");
        let response = answered.map_err(Failure::of)?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// Reads the body of an error response.
    async fn refused(&self, mut response: reqwest::Response) -> Failure {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| parse_retry_after(value, Timestamp::now()));
        // If the body can't be read, the status is enough.
        let mut uncounted = MemoryBudget::default().hold();
        let body = read(&mut response, Bytes::new(), ERROR_LIMIT, &mut uncounted).await;
        let body = body.map_or_else(|_| Bytes::new(), Read::into_bytes);
        let ErrorText { message, retryable } = ErrorText::read(&redacted(&body, self.key.expose()));
        Failure::Refused { status, retry_after, retryable, message }
    }

    fn url(&self, call: &Call) -> Url {
        let mut url = self.api_base.clone();
        url.set_path(&format!("{}{}", self.api_base.path().trim_end_matches('/'), call.path));
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        url
    }

    fn headers_of(&self, call: &Call) -> Result<HeaderMap> {
        let mut headers = self.headers.clone();
        headers.extend(call.headers.clone());
        // Reads need no key. With one key, the platform would take the pages of a list for the same request.
        if let (Some(name), Some(key)) = (&self.idempotency_header, &call.idempotency_key)
            && call.method != Method::GET
        {
            let refused =
                |_| self.error(ErrorKind::Invalid, &format!("{call}: the idempotency key is not a valid header value"));
            headers.insert(name, HeaderValue::from_str(&key.to_string()).map_err(refused)?);
        }
        Ok(headers)
    }

    /// Returns the error of a call after its last attempt.
    fn failed(&self, call: &Call, attempts: u32, failure: &Failure) -> CallError {
        let limit = humantime::format_duration(call.limit);
        let reason = match failure {
            Failure::NotSent(error) => format!("can't connect to {}: {error}", self.api_base.authority()),
            Failure::Interrupted(error) => {
                format!("the connection broke; the request may have been carried out: {error}")
            }
            Failure::TimedOut => format!("no answer within {limit}; the request may have been carried out"),
            Failure::TooLarge { status } => format!("{status}, but the answer is larger than {ANSWER_LIMIT} bytes"),
            Failure::NoMemory(limit) => format!("the answer was not read: limit reached: {limit}"),
            Failure::Refused { status, .. } if status.is_redirection() => format!(
                "{status}: redirects are not followed, to protect the credentials; check the configured api_base"
            ),
            Failure::Refused { status, message, .. } => format!("{status}: {message}"),
        };
        let tried = if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() };
        self.error(failure.kind(), &format!("{call}{tried}: {reason}"))
    }

    fn error(&self, kind: ErrorKind, message: &str) -> CallError {
        CallError::new(kind, presentable(message, self.key.expose()))
    }
}

/// The result of reading a body.
enum Read {
    /// The complete body.
    Whole(Bytes),
    /// The beginning of the body, up to the limit.
    Truncated(Bytes),
}

impl Read {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) | Self::Truncated(bytes) => bytes,
        }
    }
}

/// Reads a successful answer to its end. `prefix` was read before.
async fn whole(call: &Call, mut response: reqwest::Response, prefix: Bytes) -> std::result::Result<Answer, Failure> {
    let status = response.status();
    let mut held = call.memory.hold();
    match read(&mut response, prefix, ANSWER_LIMIT, &mut held).await? {
        Read::Whole(body) => Ok(Answer { status, body: held.attach(body) }),
        Read::Truncated(_) => Err(Failure::TooLarge { status }),
    }
}

/// Reads a body up to a limit in bytes, and counts it as it arrives.
async fn read(
    response: &mut reqwest::Response,
    prefix: Bytes,
    limit: usize,
    held: &mut HeldMemory,
) -> std::result::Result<Read, Failure> {
    held.grow(prefix.len()).map_err(Failure::NoMemory)?;
    let mut body = BytesMut::from(prefix);
    while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
        let room = limit.saturating_sub(body.len());
        held.grow(chunk.len().min(room)).map_err(Failure::NoMemory)?;
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(Read::Truncated(body.freeze()));
        }
    }
    Ok(Read::Whole(body.freeze()))
}

/// Encodes an id as one path segment. Rejects ids that can't be encoded as a segment.
pub(super) fn segment(what: &str, id: &str) -> Result<String> {
    if matches!(id, "" | "." | "..") {
        return Err(CallError::new(ErrorKind::Invalid, format!("{id:?} is not the id of a {what}")));
    }
    // Form encoding, except that a space is a plus sign only in forms.
    Ok(url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20"))
}

/// Returns a header value. `setting` names it in errors.
pub(super) fn header(setting: &'static str, value: &str) -> std::result::Result<HeaderValue, SetupError> {
    HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()).ok_or(SetupError::Header(setting))
}

/// Returns a credential as a header value that debug output hides.
pub(super) fn credential(setting: &'static str, value: &str) -> std::result::Result<HeaderValue, SetupError> {
    let mut value = header(setting, value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Rejects an address that paths can't be appended to, or that contains a secret, which would appear in logs. `example`
/// is a valid address.
pub(super) fn check_base(api_base: &Url, example: &'static str) -> std::result::Result<(), SetupError> {
    let problem = if !matches!(api_base.scheme(), "http" | "https") {
        "isn't an http or https address"
    } else if !api_base.username().is_empty() || api_base.password().is_some() {
        "contains a user name or a password; the API key has its own setting"
    } else if api_base.query().is_some() || api_base.fragment().is_some() {
        "contains ? or #, but paths are appended to it"
    } else {
        return Ok(());
    };
    Err(SetupError::ApiBase { problem, example })
}
