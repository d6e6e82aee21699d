//! The local API, which the real platform doesn't have: read access to chats, deliveries and documents. It needs no
//! credentials.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::LocalState;
use super::chats::Chat;
use super::deliver::Record;
use super::error::ApiError;
use super::wire::{Message, Step};

/// A chat with its messages and steps.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatDetail {
    #[serde(flatten)]
    chat: Chat,
    messages: Vec<MessageDetail>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageDetail {
    #[serde(flatten)]
    message: Message,
    /// The text viewers see in place of the message's text: set by a message event, not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    shown_text: Option<String>,
    /// Why the module that should have filled the message failed. `modhost dev` reports it; the real platform can't
    /// know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    steps: Vec<Step>,
}

/// The text of the root page.
const HELLO: &str = "\
This is the local platform of `modhost dev`: an API, without a page to chat in. The chat is `modhost send \"…\"`.

  /local/chats        all chats; /local/chats/ID is one, with its messages and steps
  /local/assistants   the assistants to chat with
  /local/deliveries   the events sent to the host, and its responses
  /local/documents    the documents that are searched
";

/// `GET /`: for people who open the address that `modhost dev` prints.
pub async fn hello() -> &'static str {
    HELLO
}

/// `GET /health`.
pub async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /local/chats`: returns all chats, newest first.
pub async fn chats(State(state): State<Arc<LocalState>>) -> Result<Json<Vec<Chat>>, ApiError> {
    Ok(Json(state.chats.chats()?))
}

/// `GET /local/chats/{chatId}`: returns a chat and its messages, oldest first, each with its steps in order.
pub async fn chat(State(state): State<Arc<LocalState>>, Path(id): Path<String>) -> Result<Json<ChatDetail>, ApiError> {
    let chat = state.chat(&id)?;
    let detail = |message: Message| {
        let steps = state.chats.steps(&message.id)?;
        let (shown_text, failure) = (state.chats.shown_text(&message.id), state.chats.failure(&message.id));
        Ok(MessageDetail { shown_text, failure, steps, message })
    };
    let messages = state.chats.messages(&id)?.into_iter().map(detail).collect::<Result<_, ApiError>>()?;
    Ok(Json(ChatDetail { chat, messages }))
}

/// `GET /local/assistants`.
pub async fn assistants(State(state): State<Arc<LocalState>>) -> Json<Value> {
    let assistants = state.assistants.load();
    let answer = assistants.iter().map(|assistant| {
        json!({
            "id": assistant.id,
            "name": assistant.name,
            "module": assistant.module,
            "configuration": assistant.configuration,
            "chooses": assistant.chooses,
            "tenant": assistant.tenant.as_ref().map(|tenant| &tenant.name),
        })
    });
    Json(answer.collect())
}

/// `GET /local/deliveries`: returns the delivery records, oldest first.
pub async fn deliveries(State(state): State<Arc<LocalState>>) -> Json<Vec<Record>> {
    Json(state.deliverer.records())
}

/// `POST /local/endpoint/revive`: reactivates an expired endpoint.
pub async fn revive(State(state): State<Arc<LocalState>>) -> Json<Value> {
    Json(json!({ "revived": state.deliverer.revive() }))
}

/// `GET /local/documents`: returns the documents with the ids that searches can be restricted to.
pub async fn documents(State(state): State<Arc<LocalState>>) -> Json<Value> {
    let answer = state.library.documents().into_iter().map(|document| {
        json!({
            "id": document.id,
            "key": document.key,
            "title": document.title,
            "url": state.library.url(&document.key),
            "scopeIds": document.scopes,
            "passages": document.passages.len(),
            "updatedAt": document.updated_at,
        })
    });
    Json(answer.collect())
}

/// `GET /local/documents/{key}`: returns the text of a document. Only indexed documents are served, so a path can't
/// lead outside the folder.
pub async fn document(State(state): State<Arc<LocalState>>, Path(key): Path<String>) -> Result<Response, ApiError> {
    let document = state.library.document(&key).ok_or_else(|| ApiError::not_found("document", &key))?;
    // Markdown as plain text: browsers would offer to save it otherwise.
    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((content_type, document.text.clone()).into_response())
}
