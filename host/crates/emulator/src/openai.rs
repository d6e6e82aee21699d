//! `/v1`: the local platform's model as an OpenAI-compatible endpoint, for tenants with their own `completion` and for
//! other clients of OpenAI's API.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::LocalState;
use super::completion::{CompletionRequest, Model, ModelMessage, QUOTING_MODEL, quotation};
use super::error::{ApiError, Body};
use super::quote;
use super::wire::{Object, Stamp, new_id};

/// Delay between two words of a quotation: slow enough that the text visibly grows, like a model's answer.
const WORD_INTERVAL: Duration = Duration::from_millis(10);

/// A completion request in OpenAI's form.
#[derive(Deserialize)]
pub struct Question {
    model: Option<String>,
    messages: Vec<ModelMessage>,
    #[serde(default)]
    stream: Option<bool>,
    /// `temperature`, `max_tokens`, `stream_options`, …
    #[serde(flatten)]
    options: Object,
}

/// `POST /v1/chat/completions`.
pub async fn complete(
    State(state): State<Arc<LocalState>>,
    Body(question): Body<Question>,
) -> Result<Response, ApiError> {
    let Question { model, messages, stream, options } = question;
    let streams = stream.unwrap_or_default();
    let with_usage = options.get("stream_options").is_some_and(|options| options["include_usage"] == true);
    let request = CompletionRequest { model, messages, options: Some(options), timeout: None };
    request.check()?;
    match &state.model {
        Model::Endpoint(relay) if streams => {
            let answer = relay.begin(&request).await?;
            let kind = answer.headers().get(CONTENT_TYPE).cloned();
            // Forwarded unparsed. When the client disconnects, the connection to the endpoint is closed.
            let mut response = ResponseBody::from_stream(answer.bytes_stream()).into_response();
            if let Some(kind) = kind {
                response.headers_mut().insert(CONTENT_TYPE, kind);
            }
            Ok(response)
        }
        Model::Endpoint(relay) => Ok(Json(relay.complete(&request).await?).into_response()),
        Model::Quote => {
            let text = quote::answer(&state, &request.messages).await?;
            if streams {
                return Ok(Sse::new(word_stream(&text, with_usage)).into_response());
            }
            let mut answer = quotation(&text);
            answer["object"] = "chat.completion".into();
            Ok(Json(answer).into_response())
        }
    }
}

/// `GET /v1/models`.
pub async fn models(State(state): State<Arc<LocalState>>) -> Result<Json<Value>, ApiError> {
    let models = match &state.model {
        Model::Endpoint(relay) => relay.models().await?,
        Model::Quote => vec![QUOTING_MODEL.to_owned()],
    };
    let models: Vec<_> = models.iter().map(|id| json!({ "id": id, "object": "model", "owned_by": "local" })).collect();
    Ok(Json(json!({ "object": "list", "data": models })))
}

/// Streams a text word by word, as a model does.
fn word_stream(text: &str, with_usage: bool) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let (id, created) = (new_id("chatcmpl"), Stamp::now().unix_seconds());
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": QUOTING_MODEL, "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk.to_string()
    };
    let piece = |delta: Value, reason: Option<&str>| {
        chunk(json!([{ "index": 0, "delta": delta, "finish_reason": reason }]), None)
    };
    let mut events = vec![piece(json!({ "role": "assistant", "content": "" }), None)];
    events.extend(text.split_inclusive(' ').map(|word| piece(json!({ "content": word }), None)));
    events.push(piece(json!({}), Some("stop")));
    if with_usage {
        // No model used any tokens.
        let usage = json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 });
        events.push(chunk(json!([]), Some(usage)));
    }
    events.push("[DONE]".to_owned());
    stream::iter(events).then(async |data| {
        tokio::time::sleep(WORD_INTERVAL).await;
        Ok(Event::default().data(data))
    })
}
