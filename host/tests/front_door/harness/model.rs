//! An OpenAI-compatible endpoint whose answers are set by the test.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// A running endpoint.
pub struct Model {
    /// The URL for `--completion-url`.
    pub url: String,
    asked: mpsc::UnboundedReceiver<Question>,
}

/// A request to the model; its client waits for the answer.
pub struct Question {
    /// The body of the request.
    pub body: Value,
    answer: oneshot::Sender<String>,
}

impl Model {
    /// Starts an endpoint.
    pub async fn start() -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/chat/completions", post(complete)).with_state(sender);
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, asked }
    }

    /// Waits for the next request.
    pub async fn asked(&mut self) -> Question {
        tokio::time::timeout(super::PATIENCE, self.asked.recv()).await.expect("the model was never asked").unwrap()
    }
}

impl Question {
    /// Answers the request.
    pub fn answer(self, text: &str) {
        self.answer.send(text.to_owned()).unwrap();
    }
}

async fn complete(State(asked): State<mpsc::UnboundedSender<Question>>, Json(body): Json<Value>) -> Json<Value> {
    let (answer, answered) = oneshot::channel();
    asked.send(Question { body, answer }).unwrap();
    let text = answered.await.unwrap();
    Json(json!({
        "id": "chatcmpl-1",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15 },
    }))
}
