//! Requests to language models and their answers, complete or in pieces.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::{CallError, ErrorKind, MessageChange, Result, Role};

/// A message to a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMessage {
    /// The author.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// A request to a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// The model, by the platform's name. `None` selects the configured one.
    pub model: Option<String>,
    /// The conversation so far.
    pub messages: Vec<ModelMessage>,
    /// The sampling temperature. It overrides the same field of `options`, as does `max_tokens`.
    pub temperature: Option<f32>,
    /// The maximum length of the answer, in the model's tokens.
    pub max_tokens: Option<u32>,
    /// Options that are passed to the model unchanged, a JSON object.
    pub options: Option<serde_json::Value>,
    /// The caller's time limit. The platform's settings cap it.
    pub timeout: Option<Duration>,
}

/// The answer of a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The answer.
    pub text: String,
    /// The model's finish reason (`stop`, `length`).
    pub finish_reason: Option<String>,
    /// The tokens used, if the platform reports them.
    pub usage: Option<Usage>,
}

/// The tokens that an answer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the request.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
}

/// An answer that was streamed into a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamedAnswer {
    /// The answer.
    #[serde(flatten)]
    pub completion: Completion,
    /// The change that still has to be made to the message, if the platform only showed the answer and didn't store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<MessageChange>,
}

/// The messages that a streamed answer belongs to. They are the event's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTarget {
    /// The chat.
    pub chat_id: String,
    /// The assistant (space) of the chat.
    pub assistant_id: String,
    /// The user's message.
    pub user_message_id: String,
    /// The assistant message that receives the answer.
    pub assistant_message_id: String,
}

/// The finish reason and token usage of an answer, as far as the platform reports them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The model's finish reason (`stop`, `length`).
    pub finish_reason: Option<String>,
    /// The tokens used.
    pub usage: Option<Usage>,
}

/// A streamed answer. It is read only on demand. Dropping it cancels the rest.
#[async_trait]
pub trait CompletionStream: Send {
    /// Waits for the next piece, which is never empty. Returns `None` at the end. After an error, there are no more
    /// pieces. Cancel safe.
    async fn next(&mut self) -> Result<Option<String>>;

    /// Returns the finish reason and usage, once the stream has ended.
    fn ending(&self) -> Ending;
}

/// A complete answer as a stream of one piece.
pub struct CompleteAnswer {
    text: Option<String>,
    ending: Ending,
}

impl From<Completion> for CompleteAnswer {
    fn from(completion: Completion) -> Self {
        let Completion { text, finish_reason, usage } = completion;
        Self { text: Some(text).filter(|text| !text.is_empty()), ending: Ending { finish_reason, usage } }
    }
}

#[async_trait]
impl CompletionStream for CompleteAnswer {
    async fn next(&mut self) -> Result<Option<String>> {
        Ok(self.text.take())
    }

    fn ending(&self) -> Ending {
        self.ending.clone()
    }
}

impl CompletionRequest {
    /// Returns the parameters of the request besides the conversation: the guest's options, overridden by the request's
    /// own fields.
    pub(super) fn model_options(&self) -> Result<Map<String, Value>> {
        let mut options = match &self.options {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(options)) => options.clone(),
            Some(_) => {
                return Err(CallError::new(ErrorKind::Invalid, "the completion's options aren't a JSON object"));
            }
        };
        if let Some(temperature) = self.temperature {
            options.insert("temperature".into(), number("temperature", temperature)?.into());
        }
        if let Some(max_tokens) = self.max_tokens {
            options.insert("max_tokens".into(), max_tokens.into());
        }
        Ok(options)
    }
}

/// Converts a number to JSON with its shortest decimal form: 0.3 stays 0.3 instead of becoming the nearest `f64` of the
/// `f32`.
pub(super) fn number(what: &str, value: f32) -> Result<Number> {
    let shortest = value.to_string().parse().unwrap_or(f64::from(value));
    Number::from_f64(shortest)
        .ok_or_else(|| CallError::new(ErrorKind::Invalid, format!("the {what} is {value}, not a number")))
}
