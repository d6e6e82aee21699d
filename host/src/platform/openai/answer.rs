//! The bodies of answers, whole and in pieces, read leniently: unknown fields are skipped, missing and null ones are none.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::platform::{self, lenient};

/// A whole answer.
#[derive(Deserialize)]
pub(super) struct Completion {
    choices: Vec<Choice>,
    usage: Option<lenient::Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Text,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Text {
    content: Option<String>,
}

impl Completion {
    /// The first choice; none if there is no choice.
    pub(super) fn into_completion(self) -> Option<platform::Completion> {
        let usage = self.usage.and_then(lenient::Usage::into_usage);
        let Choice { message, finish_reason } = self.choices.into_iter().next()?;
        Some(platform::Completion { text: message.content.unwrap_or_default(), finish_reason, usage })
    }
}

/// What an event of a streamed answer brings. The last before `[DONE]` has the usage and no choice.
#[derive(Deserialize)]
pub(super) struct Chunk {
    #[serde(default, deserialize_with = "lenient::list")]
    choices: Vec<Delta>,
    usage: Option<lenient::Usage>,
    /// Endpoints that fail when the answer has begun say so here.
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    index: u32,
    delta: Option<Text>,
    finish_reason: Option<String>,
}

impl Chunk {
    /// The text it adds, and why the model stopped, if it has; of the first choice, should several have been asked for.
    pub(super) fn take_text(&mut self) -> (Option<String>, Option<String>) {
        let Some(choice) = self.choices.iter_mut().find(|choice| choice.index == 0) else { return (None, None) };
        let text = choice.delta.take().and_then(|delta| delta.content).filter(|text| !text.is_empty());
        (text, choice.finish_reason.take())
    }

    /// What the answer cost, if that is told here.
    pub(super) fn usage(&mut self) -> Option<platform::Usage> {
        self.usage.take().and_then(lenient::Usage::into_usage)
    }

    /// The status that goes with its error, as far as that can be told; none if it is no error.
    pub(super) fn error(&self) -> Option<Option<StatusCode>> {
        let error = self.error.as_ref().filter(|error| !error.is_null())?;
        // A number is the status; the names are OpenAI's.
        let code = error["code"].as_u64().and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
        let named = || match error["code"].as_str().or_else(|| error["type"].as_str())? {
            "rate_limit_exceeded" | "insufficient_quota" | "tokens" | "requests" => Some(StatusCode::TOO_MANY_REQUESTS),
            "invalid_request_error" | "context_length_exceeded" | "content_filter" => Some(StatusCode::BAD_REQUEST),
            _ => None,
        };
        Some(code.or_else(named))
    }
}
