//! Failures of an attempt, and the error messages of platforms.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::ErrorKind;
use modhost_core::json;
use modhost_core::limits::LimitReached;
use modhost_core::text::{one_line, truncate};

/// The longest message of an error, in characters.
const MESSAGE_LIMIT: usize = 1000;

/// The longest quote of an unrecognized answer, in characters.
const QUOTE_LIMIT: usize = 200;

/// The reason why an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection could not be opened, so the request was certainly not carried out.
    NotSent(String),
    /// The connection broke after the request may have been sent.
    Interrupted(String),
    /// The time limit of the call expired.
    TimedOut,
    /// The body of the answer exceeds the limit.
    TooLarge {
        /// The status of the answer.
        status: StatusCode,
    },
    /// The answer doesn't fit into the memory of the caller.
    NoMemory(LimitReached),
    /// The platform answered with an error status.
    Refused {
        /// The status.
        status: StatusCode,
        /// The parsed `Retry-After`, if present.
        retry_after: Option<Duration>,
        /// False if the platform reports that a retry is useless.
        retryable: bool,
        /// The platform's message.
        message: String,
    },
}

impl Failure {
    /// Classifies an error of the HTTP client.
    pub(super) fn of(error: reqwest::Error) -> Self {
        let connecting = error.is_connect();
        // The message of the call contains the address already.
        let text = chain(&error.without_url());
        if connecting { Self::NotSent(text) } else { Self::Interrupted(text) }
    }

    /// Returns the delay that the platform requested.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the kind of the failure, for the guest.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotSent(_) | Self::Interrupted(_) | Self::TooLarge { .. } | Self::NoMemory(_) => {
                ErrorKind::Unavailable
            }
            Self::TimedOut => ErrorKind::Timeout,
            Self::Refused { status, retry_after, .. } => match status.as_u16() {
                401 | 403 => ErrorKind::Denied,
                404 | 410 => ErrorKind::NotFound,
                408 | 504 => ErrorKind::Timeout,
                429 => ErrorKind::RateLimited(*retry_after),
                400..=499 => ErrorKind::Invalid,
                // Redirects are not followed. Any other status is a fault of the platform.
                _ => ErrorKind::Unavailable,
            },
        }
    }
}

/// Formats an error with its causes, without repetitions.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// The message of an error body, parsed like the official Python SDK does: `error` is a string, or an object with
/// `message`, `code` and `params`, which may also be at the top level or under `cause`. Any other body is quoted.
pub(super) struct ErrorText {
    /// The message, on one line.
    pub(super) message: String,
    /// False if `params.retryable` is: the SDK doesn't retry these errors either.
    pub(super) retryable: bool,
}

impl ErrorText {
    /// Parses the body of an error.
    pub(super) fn read(body: &str) -> Self {
        let answer = json::Value::read(body.as_bytes()).ok().map(json::Value::to_json);
        // Google wraps its errors in a list.
        let answer = answer.map(|answer| if answer[0].is_object() { answer[0].clone() } else { answer });
        match answer {
            Some(answer) if answer.is_object() => Self::from_json(&answer),
            _ => Self { message: quote(body), retryable: true },
        }
    }

    fn from_json(answer: &Value) -> Self {
        let error = answer.get("error").filter(|error| error.is_object()).unwrap_or(answer);
        let cause = &error["cause"];
        let find = |field: &str| [&error[field], &cause["error"][field]].into_iter().find(|value| !value.is_null());

        let mut parts = Vec::new();
        parts.extend(text_of(Some(&answer["error"])));
        parts.extend(text_of(find("message").or_else(|| find("detail")).or_else(|| find("msg"))));
        parts.extend(text_of(Some(&answer["base_resp"]["status_msg"])));
        parts.extend(text_of(Some(cause)));
        parts.dedup();
        if let Some(code) = find("code").filter(|code| code.is_string() || code.is_number()) {
            parts.push(format!("code {}", text_of(Some(code)).unwrap_or_else(|| code.to_string())));
        }
        let params = find("params");
        if let Some(params) = params {
            parts.push(format!("params {params}"));
        }
        let message = if parts.is_empty() { quote(&answer.to_string()) } else { parts.join(", ") };
        let retryable = params.and_then(|params| params["retryable"].as_bool()) != Some(false);
        Self { message, retryable }
    }
}

/// Returns the text of a value, if it is a nonempty string. Validation errors are lists of strings, which are joined.
fn text_of(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

/// Quotes the beginning of a body, so that a person can recognize it.
pub(super) fn quote(body: &str) -> String {
    if body.trim().is_empty() {
        "nothing".to_owned()
    } else {
        format!("\"{}\"", truncate(&one_line(body), QUOTE_LIMIT))
    }
}

/// Returns a body as text without the key, because a platform may repeat the key that it rejects. Must be called before
/// the text is truncated, which could leave a part of the key.
pub(super) fn redacted(body: &[u8], key: &str) -> String {
    without_key(&String::from_utf8_lossy(body), key)
}

/// Returns an error message without the key, on one line, and truncated.
pub(super) fn presentable(message: &str, key: &str) -> String {
    truncate(&one_line(&without_key(message, key)), MESSAGE_LIMIT).into_owned()
}

/// Removes the key. An empty key means that the endpoint needs none.
fn without_key(text: &str, key: &str) -> String {
    if key.is_empty() { text.to_owned() } else { text.replace(key, "(api key)") }
}
