//! A language model that answers when the test allows it, to block a delivery in the middle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::until;

/// An OpenAI-compatible endpoint behind a gate that is closed at first.
pub struct Gate {
    address: SocketAddr,
    state: Arc<GateState>,
}

struct GateState {
    asked: AtomicUsize,
    gate: Semaphore,
}

impl Gate {
    /// The model's answer to everything.
    pub const ANSWER: &str = "forty-two";

    /// Listens on a free port until the test ends.
    pub async fn start() -> Self {
        let state = Arc::new(GateState { asked: AtomicUsize::new(0), gate: Semaphore::new(0) });
        let routes = Router::new().route("/v1/chat/completions", post(complete)).with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, state }
    }

    /// The base URL, for `--completion-url`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Waits until this many requests have arrived.
    pub async fn reached_by(&self, requests: usize) {
        let come = async || (self.state.asked.load(Ordering::Acquire) >= requests).then_some(());
        until(&format!("{requests} requests at the gate"), come).await;
    }

    /// Releases all waiting requests and all later ones.
    pub fn open(&self) {
        self.state.gate.close();
    }
}

async fn complete(State(state): State<Arc<GateState>>) -> Json<Value> {
    state.asked.fetch_add(1, Ordering::AcqRel);
    // The semaphore has no permits; closing it releases all waiters.
    let _ = state.gate.acquire().await;
    Json(json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": Gate::ANSWER } }] }))
}
