//! How an attempt fails, and what the platform says about it.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::ErrorKind;
use modhost_core::json;
use modhost_core::text::{one_line, truncate};

/// The longest message an error carries, in characters.
const MESSAGE_LIMIT: usize = 1000;

/// How much of an answer nobody understands is quoted, in characters.
const QUOTE_LIMIT: usize = 200;

/// Why an attempt brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection came about: the request was certainly not carried out.
    NotSent(String),
    /// The connection broke when the request may have been under way.
    Interrupted(String),
    /// The call's time limit passed.
    TimedOut,
    /// The answer goes on beyond the limit in bytes.
    TooLarge {
        /// Its status.
        status: StatusCode,
    },
    /// The platform answered with something else than success.
    Refused {
        /// Its status.
        status: StatusCode,
        /// When to come back, where it says so.
        retry_after: Option<Duration>,
        /// False where it says that trying again is no use.
        retryable: bool,
        /// Its own words.
        message: String,
    },
}

impl Failure {
    /// Sorts what the HTTP client reports.
    pub(super) fn of(error: reqwest::Error) -> Self {
        let connecting = error.is_connect();
        // The address is the call's own and told with it.
        let text = chain(&error.without_url());
        if connecting { Self::NotSent(text) } else { Self::Interrupted(text) }
    }

    /// When the platform asks to come back.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What a guest can do about it.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotSent(_) | Self::Interrupted(_) | Self::TooLarge { .. } => ErrorKind::Unavailable,
            Self::TimedOut => ErrorKind::Timeout,
            Self::Refused { status, retry_after, .. } => match status.as_u16() {
                401 | 403 => ErrorKind::Denied,
                404 | 410 => ErrorKind::NotFound,
                408 | 504 => ErrorKind::Timeout,
                429 => ErrorKind::RateLimited(*retry_after),
                400..=499 => ErrorKind::Invalid,
                // A redirect is not followed, and what else isn't success is a platform out of order.
                _ => ErrorKind::Unavailable,
            },
        }
    }
}

/// An error with its causes, each said once.
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

/// What an error answer says, read as the official Python SDK reads it: `error` is a text, or an object with
/// `message`, `code` and `params`, which may also stand at the top or under `cause`. Anything else is quoted.
pub(super) struct ErrorText {
    /// In one line.
    pub(super) message: String,
    /// False where `params.retryable` is: the SDK doesn't try those again either.
    pub(super) retryable: bool,
}

impl ErrorText {
    /// Reads the body of an error answer.
    pub(super) fn read(body: &str) -> Self {
        let answer = json::Value::read(body.as_bytes()).ok().map(json::Value::to_json);
        // Google's answers are lists of one.
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

/// The value's text, if it is one and says something. Validation errors come as a list of texts.
fn text_of(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

/// The beginning of a body, for a person to recognise it by.
pub(super) fn quote(body: &str) -> String {
    if body.trim().is_empty() {
        "nothing".to_owned()
    } else {
        format!("\"{}\"", truncate(&one_line(body), QUOTE_LIMIT))
    }
}

/// A body as text, without the key: a platform may well repeat the one it refuses. Done before anything is cut, or
/// half of the key could stay.
pub(super) fn redacted(body: &[u8], key: &str) -> String {
    without_key(&String::from_utf8_lossy(body), key)
}

/// A message as errors carry it: without the key, in one line, not too long.
pub(super) fn presentable(message: &str, key: &str) -> String {
    truncate(&one_line(&without_key(message, key)), MESSAGE_LIMIT).into_owned()
}

/// The text without the key; there are endpoints that need none.
fn without_key(text: &str, key: &str) -> String {
    if key.is_empty() { text.to_owned() } else { text.replace(key, "(api key)") }
}
