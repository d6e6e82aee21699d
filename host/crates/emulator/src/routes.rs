//! The routes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::routing::{get, patch, post};

use super::error::ApiError;
use super::{
    LocalState, completion, credentials, event_socket, local_api, message_log, messages, openai, search, space,
    stream_completions, threads,
};
use modhost_core::browser_guard::BrowserGuard;

/// Maximum size of a request body: long conversations with their context fit.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Returns all routes: the public API under both of its prefixes, the OpenAI-compatible model, NexusGPT's threads, and
/// the local API. Requests from web pages are refused: the credentials are public, and the local API needs none to show
/// chats.
pub fn router(state: Arc<LocalState>, guard: Arc<ArcSwap<BrowserGuard>>) -> Router {
    Router::new()
        .nest("/public/chat", public_api(&state))
        .nest("/public", public_api(&state))
        .nest("/v1", openai_api())
        .route("/api/public/thread/{id}/messages", post(threads::write))
        .route("/public/event-socket/events/stream", get(event_socket::stream))
        .route("/", get(local_api::hello))
        .route("/health", get(local_api::health))
        .route("/local/assistants", get(local_api::assistants))
        .route("/local/chats", get(local_api::chats))
        .route("/local/chats/{id}", get(local_api::chat))
        .route("/local/deliveries", get(local_api::deliveries))
        .route("/local/documents", get(local_api::documents))
        .route("/local/documents/{*key}", get(local_api::document))
        .route("/local/endpoint/revive", post(local_api::revive))
        .route("/local/threads/{id}", get(threads::thread))
        .method_not_allowed_fallback(async |request: Request| {
            ApiError::wrong_method(request.method().as_str(), request.uri().path())
        })
        .fallback(async |request: Request| ApiError::no_such_call(request.method().as_str(), request.uri().path()))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(guard, credentials::reject_web_pages))
        .with_state(state)
}

fn public_api(state: &Arc<LocalState>) -> Router<Arc<LocalState>> {
    Router::new()
        .route("/message-log", post(message_log::create))
        .route("/message-log/{id}", patch(message_log::update))
        .route("/messages", get(messages::list).post(messages::create))
        .route("/messages/{id}", get(messages::retrieve).patch(messages::modify).delete(messages::delete))
        .route("/messages/{id}/event", post(messages::send_event))
        .route("/search/search", post(search::search))
        .route("/search/search-string", post(search::search_string))
        .route("/openai/chat/completions", post(completion::complete))
        .route("/openai/models", get(completion::models))
        .route("/openai/embeddings", post(completion::embeddings))
        .route("/integrated/chat/stream-completions", post(stream_completions::stream))
        .route("/space", get(space::list_spaces))
        .route("/space/message", post(space::create_message))
        .route("/space/chat", post(space::create_chat))
        .route("/space/chat/{id}", patch(space::rename_chat).delete(space::delete_chat))
        .route("/space/chat/{id}/messages", get(space::messages))
        .route("/space/{id}", get(space::get_space))
        .route("/space/{id}/messages/latest", get(space::latest_message))
        .layer(middleware::from_fn_with_state(state.clone(), credentials::check))
}

fn openai_api() -> Router<Arc<LocalState>> {
    Router::new()
        .route("/chat/completions", post(openai::complete))
        .route("/models", get(openai::models))
        .layer(middleware::from_fn(credentials::check_key))
}
