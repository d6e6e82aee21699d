//! NexusGPT's threads, as far as modules use them: writing a message into one. Messages are logged, since there is no
//! page that shows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::LocalState;
use super::error::{ApiError, Body};
use super::settings::API_KEY;
use modhost_core::sync::lock;

/// Maximum length of a message in UTF-16 code units.
const MESSAGE_LIMIT: usize = 4000;

/// The messages written since the start, oldest first, by thread id.
#[derive(Default)]
pub struct Threads(Mutex<BTreeMap<String, Vec<String>>>);

/// The body of a new message.
#[derive(Deserialize)]
pub struct NewMessage {
    content: String,
}

/// `POST /api/public/thread/{id}/messages`.
pub async fn write(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(message): Body<NewMessage>,
) -> Result<Json<Value>, ApiError> {
    match headers.get("api-key").map(|key| key.as_bytes()) {
        Some(key) if key == API_KEY.as_bytes() => {}
        Some(_) => return Err(ApiError::unauthenticated(format!("the local platform's only API key is {API_KEY:?}"))),
        None => return Err(ApiError::unauthenticated(format!("the api-key header is missing: send {API_KEY}"))),
    }
    let length = message.content.encode_utf16().count();
    if !(1..=MESSAGE_LIMIT).contains(&length) {
        return Err(ApiError::invalid(format!("a message has 1 to {MESSAGE_LIMIT} characters, this one {length}")));
    }
    tracing::info!(thread = id, content = %message.content, "message written to a NexusGPT thread");
    let mut threads = lock(&state.threads.0);
    threads.entry(id).or_default().push(message.content);
    Ok(Json(json!({ "success": true })))
}

/// `GET /local/threads/{id}`: returns the messages of a thread, oldest first.
pub async fn thread(State(state): State<Arc<LocalState>>, Path(id): Path<String>) -> Json<Value> {
    let threads = lock(&state.threads.0);
    Json(json!(threads.get(&id).map_or(&[][..], Vec::as_slice)))
}
