//! Helpers: a running platform, a client for it and the servers it calls.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use modhost_emulator::{API_KEY, APP_ID, Assistant, COMPANY_ID, LocalPlatform, LocalSettings, USER_ID};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// The time limit of waiting in tests; only a failing test reaches it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Returns an assistant of this module.
pub fn assistant(module: &str, chooses: bool) -> Assistant {
    Assistant {
        id: format!("assistant_{module}"),
        name: format!("The {module}"),
        module: module.to_owned(),
        configuration: json!({ "greeting": "Hello" }),
        chooses,
        tenant: None,
    }
}

/// Returns settings with two assistants: one whose messages choose its module, one whose messages don't.
pub fn settings() -> LocalSettings {
    LocalSettings {
        assistants: vec![assistant("Answering", true), assistant("Listening", false)],
        retry_delay: Duration::from_millis(1),
        ..LocalSettings::default()
    }
}

/// A platform and a client with the right credentials.
pub struct Local {
    pub platform: LocalPlatform,
    client: reqwest::Client,
}

/// A status and a JSON body.
pub type Answer = (u16, Value);

impl Local {
    pub async fn start(settings: LocalSettings) -> Self {
        let platform = LocalPlatform::start(settings).await.expect("the platform starts");
        Self { platform, client: reqwest::Client::new() }
    }

    /// Builds a request to the public API with the credentials that every client sends.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, &format!("/public/chat{path}"))
            .bearer_auth(API_KEY)
            .header("x-app-id", APP_ID)
            .header("x-company-id", COMPANY_ID)
            .header("x-user-id", USER_ID)
            .header("x-api-version", "2023-12-06")
    }

    /// Builds a request to any path without credentials.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.platform.address()))
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Reads from the local API.
    pub async fn local(&self, path: &str) -> Value {
        let (status, body) = answer(self.bare(Method::GET, &format!("/local{path}"))).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Sends a user's message and returns it.
    pub async fn say(&self, module: &str, text: &str) -> Value {
        let (status, message) =
            self.post("/space/message", json!({ "assistantId": format!("assistant_{module}"), "text": text })).await;
        assert_eq!(status, 200, "{message}");
        message
    }

    /// Starts a chat; returns its id and the ids of the user's message and the assistant's empty message.
    pub async fn chat(&self) -> (String, String, String) {
        let question = self.say("Answering", "Hello").await;
        let chat = text(&question["chatId"]);
        let (_, latest) = self.get(&format!("/space/{chat}/messages/latest")).await;
        (chat, text(&question["id"]), text(&latest["id"]))
    }

    /// Waits until this many deliveries have this status.
    pub async fn deliveries(&self, count: usize, status: &str) -> Vec<Value> {
        eventually(async || {
            let all = self.local("/deliveries").await;
            let found: Vec<Value> =
                all.as_array().unwrap().iter().filter(|record| record["status"] == status).cloned().collect();
            if found.len() == count { Ok(found) } else { Err(format!("{count} deliveries {status}, found {all}")) }
        })
        .await
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the platform answers");
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}, but not JSON: {body}")))
}

/// Retries until an attempt succeeds.
pub async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(waited_for) => assert!(started.elapsed() < DEADLINE, "timed out waiting for {waited_for}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

/// Returns the message of an error after checking its status and shape.
pub fn error((status, body): Answer, expected: u16) -> String {
    assert_eq!(status, expected, "{body}");
    assert!(body["error"]["code"].is_string(), "{body}");
    text(&body["error"]["message"])
}

/// A scripted HTTP server that records requests and sends prepared responses.
#[derive(Clone)]
pub struct FarSide {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<(HeaderMap, Bytes)>>,
    answers: Mutex<VecDeque<FarAnswer>>,
}

/// A prepared response: a status, headers and a body in pieces.
#[derive(Clone)]
pub struct FarAnswer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub pieces: Vec<String>,
}

impl From<u16> for FarAnswer {
    fn from(status: u16) -> Self {
        Self { status, headers: Vec::new(), pieces: Vec::new() }
    }
}

impl FarSide {
    /// Starts a server that sends these responses in order, then 200.
    pub async fn answering(answers: impl IntoIterator<Item = impl Into<FarAnswer>>) -> Self {
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.into_iter().map(Into::into).collect()),
            ..Shared::default()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/{*path}", post(take).get(take)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    pub fn url(&self, path: &str) -> url::Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    pub fn received(&self) -> Vec<(HeaderMap, Bytes)> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn bodies(&self) -> Vec<Value> {
        self.received().iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    shared.received.lock().unwrap().push((headers, body));
    let answer = shared.answers.lock().unwrap().pop_front().unwrap_or_else(|| 200.into());
    let mut response = Response::builder().status(StatusCode::from_u16(answer.status).unwrap());
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let pieces = answer.pieces.into_iter().map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
    response.body(Body::from_stream(futures::stream::iter(pieces))).unwrap()
}
