//! One JSON object of an answer: an event of a stream, or a complete answer.

use std::borrow::Cow;

use http::StatusCode;

use super::failure;
use super::tools::ToolPiece;
use crate::Usage;
use modhost_core::json::{Fields, Kind, Value};

/// The parsed object.
pub(super) struct Chunk<'a> {
    pub(super) choices: Vec<Choice<'a>>,
    pub(super) usage: Option<Usage>,
    /// The status of the reported failure, if the object reports one. The status itself may be unknown.
    pub(super) failure: Option<Option<StatusCode>>,
}

/// A part of one choice.
pub(super) struct Choice<'a> {
    pub(super) raw: Value<'a>,
    pub(super) index: Option<i64>,
    /// The text with its JSON escapes, for [`TextJoiner`](crate::json::TextJoiner).
    pub(super) text: Cow<'a, [u8]>,
    pub(super) tools: Vec<ToolPiece>,
    pub(super) finish: Finish,
    pub(super) failure: Option<Option<StatusCode>>,
    /// Whether this is the complete message instead of a delta.
    pub(super) is_whole: bool,
}

/// The finish reason of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// None yet, or unknown: null, and the placeholders that servers send instead.
    None,
    /// The model stopped for this reason.
    Stopped(String),
    /// The model failed with this reason.
    Failed(String),
}

/// Placeholders for a missing finish reason.
const PLACEHOLDERS: [&str; 8] =
    ["", "null", "none", "nil", "undefined", "unknown", "unspecified", "finish_reason_unspecified"];

/// Substrings of finish reasons that mean a failure: of OpenRouter, vLLM, SGLang, DeepSeek, Zhipu, Gemini.
const FAILURES: [&str; 9] = [
    "error",
    "abort",
    "cancel",
    "fail",
    "insufficient_system_resource",
    "malformed",
    "timeout",
    "interrupt",
    "disconnect",
];

impl<'a> Chunk<'a> {
    /// Parses an object. Returns `None` if the value is not an object.
    pub(super) fn of(value: Value<'a>) -> Option<Self> {
        let fields = Fields::of(value, &["choices", "usage", "x_groq"])?;
        let choices = match fields.get("choices") {
            Some(list) if list.kind() == Kind::List => list.list().unwrap_or_default(),
            Some(choice) => vec![choice],
            None => Vec::new(),
        };
        let mut choices: Vec<_> = choices.into_iter().filter_map(Choice::of).collect();
        if choices.len() > 1 {
            for (place, choice) in choices.iter_mut().enumerate() {
                choice.index = choice.index.or(i64::try_from(place).ok());
            }
        }
        let groq = || Fields::of(fields.get("x_groq")?, &["usage"])?.get("usage").and_then(usage);
        Some(Self {
            choices,
            usage: fields.get("usage").and_then(usage).or_else(groq),
            failure: failure::completion_failure(value),
        })
    }
}

impl<'a> Choice<'a> {
    fn of(raw: Value<'a>) -> Option<Self> {
        let names = &["index", "delta", "message", "text", "finish_reason", "finishReason", "error"];
        let fields = Fields::of(raw, names)?;
        let (mut text, mut tools) = fields.get("delta").map(message_content).unwrap_or_default();
        // Some servers send both the delta and the complete message so far.
        let is_whole = text.is_empty() && tools.is_empty();
        if is_whole {
            (text, tools) = match fields.get("message") {
                Some(message) => message_content(message),
                None => (text_of(fields.get("text")), Vec::new()),
            };
        }
        let error = fields.get("error").filter(|it| !it.is_empty());
        Some(Self {
            raw,
            index: fields.integer("index"),
            text,
            tools,
            finish: fields.first(&["finish_reason", "finishReason"]).map_or(Finish::None, finish),
            failure: error.and_then(|_| failure::failure(raw)),
            is_whole,
        })
    }

    /// Returns whether the choice contains text or tool calls.
    pub(super) fn has_content(&self) -> bool {
        !self.text.is_empty() || !self.tools.is_empty()
    }
}

/// A text with its JSON escapes, and tool calls.
type MessageContent<'a> = (Cow<'a, [u8]>, Vec<ToolPiece>);

/// Returns the content of a string, or an empty text for any other value.
fn text_of(value: Option<Value<'_>>) -> Cow<'_, [u8]> {
    value.and_then(Value::content).unwrap_or_default().into()
}

/// Returns the text of a message and its tool calls. Reasoning is omitted; a refusal counts as text.
fn message_content(message: Value<'_>) -> MessageContent<'_> {
    if message.kind() == Kind::Text {
        return (text_of(Some(message)), Vec::new());
    }
    let Some(fields) = Fields::of(message, &["content", "refusal", "tool_calls", "function_call"]) else {
        return MessageContent::default();
    };
    let (mut text, mut tools) = fields.get("content").map(content).unwrap_or_default();
    if text.is_empty() {
        text = text_of(fields.get("refusal"));
    }
    tools.extend(fields.get("tool_calls").map(ToolPiece::list).unwrap_or_default());
    tools.extend(fields.get("function_call").filter(|it| !it.is_empty()).and_then(ToolPiece::single));
    (text, tools)
}

/// Parses content: a text, a list of typed parts, or one part.
fn content(content: Value<'_>) -> MessageContent<'_> {
    match content.kind() {
        Kind::Text => (text_of(Some(content)), Vec::new()),
        Kind::Number => (content.number().unwrap_or_default().as_bytes().into(), Vec::new()),
        Kind::Object => part(content),
        Kind::List => {
            let (mut text, mut tools) = (Vec::new(), Vec::new());
            for (part_text, calls) in content.list().unwrap_or_default().into_iter().map(part) {
                text.extend_from_slice(&part_text);
                tools.extend(calls);
            }
            (text.into(), tools)
        }
        Kind::Null | Kind::Bool => MessageContent::default(),
    }
}

/// Parses a part of the content. Only text and tool calls are used.
fn part(part: Value<'_>) -> MessageContent<'_> {
    if part.kind() == Kind::Text {
        return (text_of(Some(part)), Vec::new());
    }
    let names = &["type", "text", "refusal", "content", "thought", "id", "name", "input"];
    let Some(fields) = Fields::of(part, names) else { return MessageContent::default() };
    let is_thought = fields.get("thought").is_some_and(Value::is_true);
    let text = match fields.text("type").unwrap_or_default().as_str() {
        _ if is_thought => None,
        "" | "text" | "output_text" | "text_delta" => fields.first(&["text", "content"]),
        "refusal" => fields.first(&["refusal", "text"]),
        "tool_use" | "tool_call" | "function" => {
            return (Cow::default(), ToolPiece::single(part).into_iter().collect());
        }
        _ => None,
    };
    let text = text.and_then(|text| match text.kind() {
        Kind::Object => Fields::of(text, &["value"])?.get("value"),
        _ => Some(text),
    });
    (text_of(text), Vec::new())
}

/// Parses a finish reason: a string, or an object that contains one.
fn finish(reason: Value<'_>) -> Finish {
    if reason.kind() == Kind::Object {
        let inner = Fields::of(reason, &["type", "reason"]);
        return inner.and_then(|it| it.first(&["type", "reason"])).map_or(Finish::None, finish);
    }
    let Some(word) = reason.text() else { return Finish::None };
    let word = word.text.trim();
    let lower = word.to_ascii_lowercase();
    if PLACEHOLDERS.contains(&lower.as_str()) {
        Finish::None
    } else if FAILURES.iter().any(|failure| lower.contains(failure)) {
        Finish::Failed(word.to_owned())
    } else {
        Finish::Stopped(word.to_owned())
    }
}

/// Returns the token usage, in the field names of OpenAI, Unique or Anthropic. `None` if there are none.
pub(crate) fn usage(usage: Value<'_>) -> Option<Usage> {
    let names =
        &["prompt_tokens", "promptTokens", "input_tokens", "completion_tokens", "completionTokens", "output_tokens"];
    let fields = Fields::of(usage, names)?;
    let read = fields.first(&["prompt_tokens", "promptTokens", "input_tokens"]).and_then(Value::integer);
    let written = fields.first(&["completion_tokens", "completionTokens", "output_tokens"]).and_then(Value::integer);
    if read.is_none() && written.is_none() {
        return None;
    }
    Some(Usage { prompt_tokens: read.unwrap_or_default(), completion_tokens: written.unwrap_or_default() })
}
