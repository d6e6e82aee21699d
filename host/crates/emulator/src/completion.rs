//! `/openai`: answers of a language model or, if none is connected, quotations.

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

/// The model name of quotations.
pub const QUOTING_MODEL: &str = "local-quote";

/// Time limit of a completion if the request has none: the timeout of the official Python SDK.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The model that answers completions.
pub enum Model {
    /// An OpenAI-compatible endpoint.
    Endpoint(Box<Relay>),
    /// Quotations from the documents.
    Quote,
}

/// A completion request in the platform's form.
#[derive(Deserialize)]
pub struct CompletionRequest {
    /// The platform's name of the model.
    pub model: Option<String>,
    /// The conversation, oldest first.
    pub messages: Vec<ModelMessage>,
    /// Further options of the model's API (`temperature`, `max_tokens`, `tools`, …).
    pub options: Option<Object>,
    /// The time limit in milliseconds.
    pub timeout: Option<u64>,
}

impl CompletionRequest {
    /// Returns the time limit.
    pub fn time_limit(&self) -> Duration {
        self.timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis)
    }

    /// Checks that the conversation has at least one message.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages is empty: a completion needs at least one message"));
        }
        Ok(())
    }
}

/// A message to a language model.
#[derive(Clone, Serialize, Deserialize)]
pub struct ModelMessage {
    /// The role of the author.
    pub role: ModelRole,
    /// The content: a text or a list of parts.
    #[serde(default)]
    pub content: Value,
    /// Further fields of the model's API (`name`, `tool_call_id`, …).
    #[serde(flatten)]
    rest: Object,
}

impl ModelMessage {
    /// Returns the text of the content.
    pub fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
            _ => String::new(),
        }
    }
}

/// The role of a message's author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelRole {
    /// Instructions.
    System,
    /// Instructions, in the terms of newer models.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
    /// The result of a tool, in the terms of older models.
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
    // The SDK expects this object name, not OpenAI's.
    answer["object"] = "openai.chat.completion".into();
    Ok(Json(answer))
}

/// Builds a completion from a quotation.
pub fn quotation(text: &str) -> Value {
    json!({
        "id": new_id("chatcmpl"),
        "created": Stamp::now().unix_seconds(),
        "model": QUOTING_MODEL,
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        // No model used any tokens.
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

/// `POST /openai/embeddings`: unsupported.
pub async fn embeddings() -> ApiError {
    ApiError::unsupported(
        "the local platform doesn't support embeddings: it searches by words, with POST /search/search",
    )
}
