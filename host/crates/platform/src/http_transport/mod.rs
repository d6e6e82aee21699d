//! JSON over HTTP, as every platform is spoken to: one call with its attempts, the waits between them, and the limits in
//! time and size.
//!
//! It repeats only what can't happen twice by it; see [`retry`].

mod failure;
mod http_client;
mod opened;
mod retry;

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
use super::{CallError, Completion, ErrorKind, Result};
use modhost_core::backoff::RetryPolicy;
use modhost_core::json::{Fields, Value};
use modhost_core::retry_after::parse_retry_after;
use modhost_core::secret::Secret;

pub use http_client::http_client;
pub(super) use opened::Opened;
pub(super) use retry::Repeat;

/// The largest answer that is read, in bytes: a thousand long passages fit in well.
pub(super) const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// How much of an error answer is read, in bytes; what it says stands at its beginning.
const ERROR_LIMIT: usize = 64 * 1024;

/// Why a client of a platform can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No path can be appended to the address, or it holds a secret.
    #[error("api_base {problem}; it should look like {example}")]
    ApiBase {
        /// What is wrong with it.
        problem: &'static str,
        /// One that isn't.
        example: &'static str,
    },
    /// A setting can't stand in a header. What it is set to is never told.
    #[error("{0} is empty, or holds a control character (a line break at its end, perhaps)")]
    Header(&'static str),
    /// TLS can't be set up.
    #[error("the HTTP client can't be set up; are the system's CA certificates installed?")]
    HttpClient(#[source] reqwest::Error),
}

/// A request, and how often and how long it may be tried.
pub(super) struct Call {
    method: Method,
    /// Below `api_base`, encoded. What errors and logs name.
    path: String,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    idempotency_key: Option<String>,
    body: Option<Bytes>,
    repeat: Repeat,
    started: Instant,
    limit: Duration,
}

impl Call {
    /// A call that must end within `limit` from now, attempts, waits and all.
    pub(super) fn new(method: Method, path: impl Into<String>, repeat: Repeat, limit: Duration) -> Self {
        let (query, headers, started) = (Vec::new(), HeaderMap::new(), Instant::now());
        let (path, idempotency_key, body) = (path.into(), None, None);
        Self { method, path, query, headers, idempotency_key, body, repeat, started, limit }
    }

    /// With this JSON.
    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|error| {
            CallError::new(ErrorKind::Invalid, format!("{self}: can't be written as JSON: {error}"))
        })?;
        self.body = Some(body.into());
        Ok(self)
    }

    /// With these query parameters instead of earlier ones.
    pub(super) fn set_query(&mut self, query: Vec<(&'static str, String)>) {
        self.query = query;
    }

    /// With this header besides those that every call carries; `what` names its value in errors.
    pub(super) fn header(mut self, name: HeaderName, what: &str, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| CallError::new(ErrorKind::Invalid, format!("{self}: the {what} can't stand in a header")))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// With this key, by which a platform that knows such keys tells a second attempt from a second call.
    pub(super) fn idempotency_key(mut self, key: Option<&str>) -> Self {
        self.idempotency_key = key.map(str::to_owned);
        self
    }

    fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    /// Waits for an attempt as long as the call may take.
    async fn in_time<T>(
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

/// What the platform answered, when it answered with success.
pub(super) struct Answer {
    status: StatusCode,
    body: Bytes,
}

/// The way to a platform: address, credentials and the manner of trying again.
#[derive(Debug)]
pub(super) struct HttpTransport {
    /// What carries the requests.
    pub(super) client: reqwest::Client,
    /// The address paths are appended to: one that [`check_base`] has passed.
    pub(super) api_base: Url,
    /// What every call carries, credentials included.
    pub(super) headers: HeaderMap,
    /// The key, to be kept out of errors.
    pub(super) key: Secret,
    /// How calls are tried again.
    pub(super) retry: RetryPolicy,
    /// The header that carries a call's idempotency key; none: it isn't sent.
    pub(super) idempotency_header: Option<HeaderName>,
}

impl HttpTransport {
    /// Carries out a call, trying again where that is allowed and may help.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer> {
        let headers = self.headers_of(call)?;
        let mut attempt = 1;
        loop {
            let whole = async { whole(self.attempt(&headers, call, attempt).await?, Bytes::new()).await };
            match call.in_time(whole).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.wait(call, attempt, &failure).await?,
            }
            attempt += 1;
        }
    }

    /// Carries out a call whose answer is read as it comes; tries again as [`HttpTransport::send`] does, until it begins.
    pub(super) async fn open(self: &Arc<Self>, call: Call) -> Result<Opened> {
        let headers = self.headers_of(&call)?;
        let mut attempt = 1;
        loop {
            match call.in_time(self.attempt(&headers, &call, attempt)).await {
                Ok(response) => return Ok(Opened::new(self.clone(), call, response)),
                Err(failure) => self.wait(&call, attempt, &failure).await?,
            }
            attempt += 1;
        }
    }

    /// Waits until the next attempt, if there is one after this failure.
    async fn wait(&self, call: &Call, attempt: u32, failure: &Failure) -> Result<()> {
        match retry::delay(&self.retry, call.repeat, attempt, failure, call.remaining()) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(self.failed(call, attempt, failure)),
        }
        Ok(())
    }

    /// Checks an answer nothing is read from. Many servers have none, but an error or the page of a proxy is no success.
    pub(super) fn check_done(&self, call: &Call, answer: &Answer) -> Result<()> {
        match answer.body.trim_ascii_start().first() {
            Some(b'{') => self.decode(call, answer, |_| Ok(())),
            Some(b'<') => Err(self.unexpected(call, answer, "is a page and no JSON")),
            _ => Ok(()),
        }
    }

    /// Reads an answer, unless it is a failure that comes as if it were a success; `read` says what is missing.
    pub(super) fn decode<T>(
        &self,
        call: &Call,
        answer: &Answer,
        read: impl FnOnce(Value<'_>) -> std::result::Result<T, &'static str>,
    ) -> Result<T> {
        let failed = self.decode_any(call, answer, |value| {
            // What was made has an id, and may well have an error, too: a message whose answer failed.
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

    /// Reads an answer, whatever it says. A missing body is an empty object, as it is for the official Python SDK.
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

    /// A completion in OpenAI's format.
    pub(super) fn completion(&self, call: &Call, answer: &Answer) -> Result<Completion> {
        chat_completion::completion(&answer.body).map_err(|fault| self.no_completion(call, answer, &fault))
    }

    /// The error for an answer that says success and is no completion.
    pub(super) fn no_completion(&self, call: &Call, answer: &Answer, fault: &Fault) -> CallError {
        let about = format!("{call}: {}, but the answer", answer.status);
        match fault {
            Fault::Unreadable { why, .. } => self.unreadable(call, answer, why),
            Fault::Failed { .. } => self.fault(&format!("{about} is an error"), fault),
            fault => self.fault(&about, fault),
        }
    }

    /// The error for an answer that is none; `about` is the beginning of its message.
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

    /// The error for an answer that says success and can't be read.
    pub(super) fn unreadable(&self, call: &Call, answer: &Answer, why: &str) -> CallError {
        self.unexpected(call, answer, &format!("can't be understood ({why})"))
    }

    /// The error for an answer that says success and isn't what was to be expected; `what` goes on from "the answer".
    pub(super) fn unexpected(&self, call: &Call, answer: &Answer, what: &str) -> CallError {
        let Answer { status, body } = answer;
        let quoted = quote(&redacted(body, self.key.expose()));
        self.error(ErrorKind::Unavailable, &format!("{call}: {status}, but the answer {what}: {quoted}"))
    }

    /// Sends the request once. What comes back is a success whose body is still to be read.
    async fn attempt(
        &self,
        headers: &HeaderMap,
        call: &Call,
        attempt: u32,
    ) -> std::result::Result<reqwest::Response, Failure> {
        let begun = Instant::now();
        let mut request = self.client.request(call.method.clone(), self.url(call)).headers(headers.clone());
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body.clone());
        }
        let answered = request.send().await;
        let status = answered.as_ref().ok().map(|response| response.status().as_u16());
        let elapsed = begun.elapsed();
        tracing::debug!(method = %call.method, path = %call.path, attempt, status, ?elapsed, "called the platform");
        let response = answered.map_err(Failure::of)?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// Reads what an answer that isn't a success says.
    async fn refused(&self, mut response: reqwest::Response) -> Failure {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| parse_retry_after(value, Timestamp::now()));
        // The status says enough, should the words be lost on the way.
        let body = read(&mut response, Bytes::new(), ERROR_LIMIT).await.map_or_else(|_| Bytes::new(), Read::into_bytes);
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
        // A read needs none; under one key the pages of a list would be taken for one and the same request.
        if let (Some(name), Some(key)) = (&self.idempotency_header, &call.idempotency_key)
            && call.method != Method::GET
        {
            let refused =
                |_| self.error(ErrorKind::Invalid, &format!("{call}: the idempotency key can't stand in a header"));
            headers.insert(name, HeaderValue::from_str(key).map_err(refused)?);
        }
        Ok(headers)
    }

    /// The error for a call that failed for good.
    fn failed(&self, call: &Call, attempts: u32, failure: &Failure) -> CallError {
        let limit = humantime::format_duration(call.limit);
        let what = match failure {
            Failure::NotSent(error) => format!("can't connect to {}: {error}", self.api_base.authority()),
            Failure::Interrupted(error) => format!("the connection broke, and it may have been carried out: {error}"),
            Failure::TimedOut => format!("no answer within {limit}, and it may have been carried out"),
            Failure::TooLarge { status } => format!("{status}, but the answer is larger than {ANSWER_LIMIT} bytes"),
            Failure::Refused { status, .. } if status.is_redirection() => format!(
                "{status}: redirects are not followed, since the credentials would go along; check the configured api_base"
            ),
            Failure::Refused { status, message, .. } => format!("{status}: {message}"),
        };
        let tried = if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() };
        self.error(failure.kind(), &format!("{call}{tried}: {what}"))
    }

    fn error(&self, kind: ErrorKind, message: &str) -> CallError {
        CallError::new(kind, presentable(message, self.key.expose()))
    }
}

/// What was read of a body.
enum Read {
    /// All of it.
    Whole(Bytes),
    /// Its beginning, up to the limit.
    Cut(Bytes),
}

impl Read {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) | Self::Cut(bytes) => bytes,
        }
    }
}

/// Reads a successful answer to its end; `begun` is what was read of it before.
async fn whole(mut response: reqwest::Response, begun: Bytes) -> std::result::Result<Answer, Failure> {
    let status = response.status();
    match read(&mut response, begun, ANSWER_LIMIT).await? {
        Read::Whole(body) => Ok(Answer { status, body }),
        Read::Cut(_) => Err(Failure::TooLarge { status }),
    }
}

/// Reads a body up to a limit in bytes.
async fn read(response: &mut reqwest::Response, begun: Bytes, limit: usize) -> std::result::Result<Read, Failure> {
    let mut body = BytesMut::from(begun);
    while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
        let room = limit.saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(Read::Cut(body.freeze()));
        }
    }
    Ok(Read::Whole(body.freeze()))
}

/// An id as a segment of a path. Whatever it holds, it stays one segment; the names of no segment at all can't be
/// encoded and are refused.
pub(super) fn segment(what: &str, id: &str) -> Result<String> {
    if matches!(id, "" | "." | "..") {
        return Err(CallError::new(ErrorKind::Invalid, format!("{id:?} is not the id of a {what}")));
    }
    // Form encoding but for the space, which is a plus sign in forms only.
    Ok(url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20"))
}

/// A value as a header's; `setting` names it in errors.
pub(super) fn header(setting: &'static str, value: &str) -> std::result::Result<HeaderValue, SetupError> {
    HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()).ok_or(SetupError::Header(setting))
}

/// A credential as a header's value, kept out of debug output.
pub(super) fn credential(setting: &'static str, value: &str) -> std::result::Result<HeaderValue, SetupError> {
    let mut value = header(setting, value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Refuses an address that no path can be appended to, or that holds what would end up in logs. `example` is one that
/// is right.
pub(super) fn check_base(api_base: &Url, example: &'static str) -> std::result::Result<(), SetupError> {
    let problem = if !matches!(api_base.scheme(), "http" | "https") {
        "isn't an http or https address"
    } else if !api_base.username().is_empty() || api_base.password().is_some() {
        "has a user name or a password in it; the API key is set on its own"
    } else if api_base.query().is_some() || api_base.fragment().is_some() {
        "has a ? or # in it, where paths are to be appended"
    } else {
        return Ok(());
    };
    Err(SetupError::ApiBase { problem, example })
}
