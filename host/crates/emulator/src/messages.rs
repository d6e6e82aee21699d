//! `/messages`: the messages of a chat, as modules read and write them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;

use super::LocalState;
use super::error::{ApiError, Body, Params};
use super::wire::{Correlation, List, Message, MessageAnswer, Object, Reference, Role, Stamp};

/// The query that names a chat.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatQuery {
    chat_id: String,
    exclude_gpt_request: Option<String>,
}

/// A new message, as the official Python SDK sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMessage {
    chat_id: String,
    assistant_id: String,
    role: Role,
    text: Option<String>,
    references: Option<Vec<Reference>>,
    debug_info: Option<Object>,
    completed_at: Option<Stamp>,
    correlation: Option<Correlation>,
}

/// Changes of a message; missing or null fields stay unchanged.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageChange {
    chat_id: String,
    text: Option<String>,
    original_text: Option<String>,
    references: Option<Vec<Reference>>,
    gpt_request: Option<Value>,
    debug_info: Option<Object>,
    started_streaming_at: Option<Stamp>,
    stopped_streaming_at: Option<Stamp>,
    completed_at: Option<Stamp>,
}

impl MessageChange {
    fn apply(self, message: &mut Message) {
        fn set<T>(field: &mut Option<T>, change: Option<T>) {
            if change.is_some() {
                *field = change;
            }
        }
        set(&mut message.text, self.text);
        set(&mut message.original_text, self.original_text);
        set(&mut message.gpt_request, self.gpt_request);
        set(&mut message.debug_info, self.debug_info);
        set(&mut message.started_streaming_at, self.started_streaming_at);
        set(&mut message.stopped_streaming_at, self.stopped_streaming_at);
        set(&mut message.completed_at, self.completed_at);
        if let Some(references) = self.references {
            message.references = references;
        }
    }
}

/// `POST /messages`: creates a message of the assistant.
pub async fn create(
    State(state): State<Arc<LocalState>>,
    Body(new): Body<NewMessage>,
) -> Result<Json<MessageAnswer>, ApiError> {
    let chat = state.chat(&new.chat_id)?;
    if new.role != Role::Assistant {
        return Err(ApiError::invalid(
            "role must be \"ASSISTANT\": messages of users are sent with POST /space/message",
        ));
    }
    if new.assistant_id != chat.assistant_id {
        let message = format!("assistantId is {:?}, but the chat belongs to {:?}", new.assistant_id, chat.assistant_id);
        return Err(ApiError::invalid(message));
    }
    let message = Message {
        references: new.references.unwrap_or_default(),
        debug_info: new.debug_info,
        correlation: new.correlation,
        completed_at: new.completed_at,
        // A message created complete was never streamed, and this call has no fields for streaming times. Clients that
        // wait for an answer read them, so they are set here.
        started_streaming_at: new.completed_at,
        stopped_streaming_at: new.completed_at,
        ..Message::new(&new.chat_id, Role::Assistant, new.text)
    };
    state.chats.add_message(&message)?;
    Ok(Json(message.into()))
}

/// `GET /messages?chatId=`: the messages of a chat, oldest first.
pub async fn list(
    State(state): State<Arc<LocalState>>,
    Params(wanted): Params<ChatQuery>,
) -> Result<Json<List<MessageAnswer>>, ApiError> {
    state.chat(&wanted.chat_id)?;
    let mut messages = state.chats.messages(&wanted.chat_id)?;
    if is_true(wanted.exclude_gpt_request.as_deref()) {
        messages.iter_mut().for_each(|message| message.gpt_request = None);
    }
    Ok(Json(List::single_page("/messages", messages.into_iter().map(MessageAnswer::from).collect())))
}

/// Returns whether a query parameter is true; Python writes `True`.
pub fn is_true(parameter: Option<&str>) -> bool {
    parameter.is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// `GET /messages/{id}?chatId=`.
pub async fn retrieve(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    Params(wanted): Params<ChatQuery>,
) -> Result<Json<MessageAnswer>, ApiError> {
    Ok(Json(state.message(&wanted.chat_id, &id)?.into()))
}

/// `PATCH /messages/{id}`.
pub async fn modify(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    Body(change): Body<MessageChange>,
) -> Result<Json<MessageAnswer>, ApiError> {
    let chat = state.chat(&change.chat_id)?;
    let changed = state.chats.change_message(&chat.id, &id, |message| change.apply(message))?;
    Ok(Json(changed.ok_or_else(|| ApiError::not_found("message", &id))?.into()))
}

/// `POST /messages/{id}/event`: changes the message that viewers see, without storing the change. Returns the message
/// as viewers see it.
pub async fn send_event(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    Body(change): Body<MessageChange>,
) -> Result<Json<MessageAnswer>, ApiError> {
    let mut message = state.message(&change.chat_id, &id)?;
    if let Some(text) = &change.text {
        state.chats.show(&id, text);
    }
    change.apply(&mut message);
    Ok(Json(message.into()))
}

/// `DELETE /messages/{id}?chatId=`: returns the deleted message.
pub async fn delete(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    Params(wanted): Params<ChatQuery>,
) -> Result<Json<MessageAnswer>, ApiError> {
    let message = state.message(&wanted.chat_id, &id)?;
    state.chats.delete_message(&id)?;
    Ok(Json(message.into()))
}
