//! `/openai`: answers of a language model, or, where none is connected, quotations.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LocalState;
use super::error::{ApiError, Body};
use super::quote;
use super::relay::Relay;
use super::wire::{Object, Stamp, new_id};

/// The name quotations are signed with, where a model's name is expected.
pub const QUOTING_MODEL: &str = "local-quote";

/// How long a completion may take if the request doesn't say: as long as the official Python SDK waits.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// What answers.
pub enum Model {
    /// An OpenAI-compatible endpoint.
    Endpoint(Box<Relay>),
    /// The documents themselves.
    Quote,
}

/// What a language model is asked, in the platform's words.
#[derive(Deserialize)]
pub struct CompletionRequest {
    /// The model, by the platform's name.
    pub model: Option<String>,
    /// The conversation, oldest first.
    pub messages: Vec<ModelMessage>,
    /// What the model's own API takes besides (`temperature`, `max_tokens`, `tools`, …).
    pub options: Option<Object>,
    /// How long to wait, in milliseconds.
    pub timeout: Option<u64>,
}

impl CompletionRequest {
    /// How long to wait.
    pub fn time_limit(&self) -> Duration {
        self.timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis)
    }

    /// A conversation has at least one message.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages is empty: a model needs something to answer"));
        }
        Ok(())
    }
}

/// A message to a language model.
#[derive(Clone, Serialize, Deserialize)]
pub struct ModelMessage {
    /// Who says it.
    pub role: ModelRole,
    /// What is said: a text, or a list of parts.
    #[serde(default)]
    pub content: Value,
    /// Whatever else the model's own API takes (`name`, `tool_call_id`, …).
    #[serde(flatten)]
    rest: Object,
}

impl ModelMessage {
    /// What is said, without what is not text.
    pub fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
            _ => String::new(),
        }
    }
}

/// Who says something to a language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelRole {
    /// Instructions.
    System,
    /// Instructions, as newer models call them.
    Developer,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
    /// What a tool answered.
    Tool,
    /// What a tool answered, as older models call it.
    Function,
}

/// `POST /openai/chat/completions`.
pub async fn complete(
    State(state): State<Arc<LocalState>>,
    Body(request): Body<CompletionRequest>,
) -> Result<Json<Value>, ApiError> {
    request.check()?;
    let mut answer = match &state.model {
        Model::Endpoint(relay) => relay.complete(&request).await?,
        Model::Quote => quotation(&quote::answer(&state, &request.messages).await?),
    };
    // The name the SDK knows the object by; OpenAI's own is another.
    answer["object"] = "openai.chat.completion".into();
    Ok(Json(answer))
}

/// A quotation in the shape of a completion.
pub fn quotation(text: &str) -> Value {
    json!({
        "id": new_id("chatcmpl"),
        "created": Stamp::now().unix_seconds(),
        "model": QUOTING_MODEL,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        // No model read or wrote a token.
        "usage": { "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 },
    })
}

/// `GET /openai/models`.
pub async fn models(State(state): State<Arc<LocalState>>) -> Result<Json<Value>, ApiError> {
    let models = match &state.model {
        Model::Endpoint(relay) => relay.models().await?,
        Model::Quote => vec![QUOTING_MODEL.to_owned()],
    };
    Ok(Json(json!({ "models": models })))
}

/// `POST /openai/embeddings`: nothing here makes any.
pub async fn embeddings() -> ApiError {
    ApiError::unsupported("the local platform makes no embeddings: it searches by words, with POST /search/search")
}
