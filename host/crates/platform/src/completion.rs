//! What a language model is asked and what it answers, whole or piece by piece.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::{CallError, ErrorKind, MessageChange, Result, Role};

/// A message to a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMessage {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// A question to a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// The model, in the platform's names; none leaves it to the platform's configuration.
    pub model: Option<String>,
    /// The conversation so far.
    pub messages: Vec<ModelMessage>,
    /// How freely the model words its answer; wins over the same field of `options`, and so does `max_tokens`.
    pub temperature: Option<f32>,
    /// How long the answer may be, in the model's tokens.
    pub max_tokens: Option<u32>,
    /// Options the platform hands on to the model as they are, a JSON object.
    pub options: Option<serde_json::Value>,
    /// How long the caller waits; never longer than the platform's settings allow.
    pub timeout: Option<Duration>,
}

/// What a language model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The answer.
    pub text: String,
    /// Why the model stopped, in its own words (`stop`, `length`).
    pub finish_reason: Option<String>,
    /// What it cost, where the platform tells.
    pub usage: Option<Usage>,
}

/// What an answer cost, in the model's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Read.
    pub prompt_tokens: u32,
    /// Written.
    pub completion_tokens: u32,
}

/// What a language model has answered into a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamedAnswer {
    /// The answer.
    #[serde(flatten)]
    pub completion: Completion,
    /// What the message is still to become: where the answer was only shown so far, and the platform hasn't written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<MessageChange>,
}

/// Where an answer is streamed to: the event's own messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTarget {
    /// The chat.
    pub chat_id: String,
    /// The assistant (space) of the chat.
    pub assistant_id: String,
    /// The message that asks.
    pub user_message_id: String,
    /// The message that is filled.
    pub assistant_message_id: String,
}

/// Why a model stopped, and what the answer cost: as far as the platform tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why the model stopped, in its own words (`stop`, `length`).
    pub finish_reason: Option<String>,
    /// What it cost.
    pub usage: Option<Usage>,
}

/// An answer on its way. Nothing is fetched that isn't asked for; dropping it gives the rest up.
#[async_trait]
pub trait CompletionStream: Send {
    /// Waits for the next piece, which is never empty; none is the end. After an error nothing more comes. Who gives up
    /// waiting loses nothing.
    async fn next(&mut self) -> Result<Option<String>>;

    /// How it ended, once it has.
    fn ending(&self) -> Ending;
}

/// An answer that came whole, as the only piece of a stream.
pub struct WholeAnswer {
    text: Option<String>,
    ending: Ending,
}

impl From<Completion> for WholeAnswer {
    fn from(completion: Completion) -> Self {
        let Completion { text, finish_reason, usage } = completion;
        Self { text: Some(text).filter(|text| !text.is_empty()), ending: Ending { finish_reason, usage } }
    }
}

#[async_trait]
impl CompletionStream for WholeAnswer {
    async fn next(&mut self) -> Result<Option<String>> {
        Ok(self.text.take())
    }

    fn ending(&self) -> Ending {
        self.ending.clone()
    }
}

impl CompletionRequest {
    /// What the model's API is given besides the conversation: the options the guest hands on, and over them what it says
    /// in so many words.
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

/// A number as JSON has it: 0.3 stays 0.3 rather than becoming its nearest neighbour in twice the bits.
pub(super) fn number(what: &str, value: f32) -> Result<Number> {
    let shortest = value.to_string().parse().unwrap_or(f64::from(value));
    Number::from_f64(shortest)
        .ok_or_else(|| CallError::new(ErrorKind::Invalid, format!("the {what} is {value}, not a number")))
}
