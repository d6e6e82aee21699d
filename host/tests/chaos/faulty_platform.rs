//! A local platform behind a proxy that records the host's requests and injects faults.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header, request};
use modhost_emulator as local;
use modhost_emulator::{Assistant, LocalPlatform, LocalSettings};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::harness::{http as http_client, until};

/// The path of the platform's API.
const API: &str = "/public/chat";

/// A local platform with the proxy in front of it.
pub struct FaultyPlatform {
    /// Stops when dropped.
    _platform: LocalPlatform,
    proxy: Arc<Proxy>,
    address: SocketAddr,
    listener: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
    asked: AtomicU64,
    /// The number of lives of the hosts that use it.
    lives: Arc<AtomicU32>,
}

/// A request of the host.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The life of the host that sent it, from 1.
    pub life: u32,
    pub method: Method,
    /// The path below the API's base.
    pub path: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// The text that it writes for the user.
    pub text: Option<String>,
}

/// A fault that the proxy injects.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The platform doesn't get the request; the proxy answers with this status, `Retry-After`, and body.
    Answer(u16, Option<u64>, &'static str),
    /// The platform executes the request; the answer is delayed until [`FaultyPlatform::release`].
    Hold,
}

/// A user's message, and its event.
#[derive(Clone, Debug)]
pub struct Question {
    pub chat: String,
    /// The id of the assistant message to fill.
    pub reply: String,
    pub event: Value,
}

struct Proxy {
    target: String,
    client: reqwest::Client,
    seen: Mutex<Vec<RecordedRequest>>,
    planned: Mutex<Vec<Planned>>,
    free: watch::Sender<bool>,
}

/// A planned fault.
struct Planned {
    method: Method,
    path: &'static str,
    marker: String,
    left: usize,
    fault: Fault,
}

impl RecordedRequest {
    /// The delivery that the request belongs to.
    pub fn delivery(&self) -> Option<&str> {
        self.key.as_ref()?.split('-').next()
    }

    /// Reports whether the request changes something or costs money.
    pub fn is_effect(&self) -> bool {
        self.method != Method::GET && !self.path.starts_with("/search/")
    }

    /// Reports whether the request is this call of the API.
    pub fn is(&self, method: &Method, path: &str) -> bool {
        self.method == *method && self.path.starts_with(path)
    }
}

impl Question {
    /// The id of the event.
    pub fn id(&self) -> &str {
        self.event["id"].as_str().unwrap()
    }

    /// The event of the same message with another id.
    pub fn again_as(&self, id: &str) -> Value {
        let mut event = self.event.clone();
        event["id"] = id.into();
        event
    }
}

impl FaultyPlatform {
    /// Starts the platform and the proxy, with an assistant for each of these modules.
    pub async fn start(modules: &[&str]) -> Self {
        let assistants = modules.iter().map(|module| Assistant {
            id: format!("assistant_{module}"),
            name: (*module).to_owned(),
            module: (*module).to_owned(),
            configuration: json!({}),
            chooses: true,
            tenant: None,
        });
        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/assistant/documents");
        let settings =
            LocalSettings { documents: Some(documents), assistants: assistants.collect(), ..LocalSettings::default() };
        let platform = LocalPlatform::start(settings).await.unwrap();
        let proxy = Arc::new(Proxy {
            target: format!("http://{}", platform.address()),
            client: http_client(),
            seen: Mutex::default(),
            planned: Mutex::default(),
            free: watch::Sender::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Mutex::new(Some(serve(listener, proxy.clone())));
        Self { _platform: platform, proxy, address, listener, asked: AtomicU64::new(0), lives: Arc::default() }
    }

    /// The address of the proxy. Each life of a host has its own API path below it: see [`api_base`].
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The counter of the lives of all hosts that use the platform, so that each life has a number of its own.
    pub fn lives(&self) -> Arc<AtomicU32> {
        self.lives.clone()
    }

    /// Makes the platform unreachable: nothing listens at its address.
    pub async fn go_down(&self) {
        let (stop, server) = self.listener.lock().unwrap().take().unwrap();
        stop.cancel();
        server.await.unwrap();
    }

    /// Makes the platform reachable again at the same address.
    pub async fn come_back(&self) {
        let listener = until("the platform's port", async || TcpListener::bind(self.address).await.ok()).await;
        *self.listener.lock().unwrap() = Some(serve(listener, self.proxy.clone()));
    }

    /// Injects a fault into the next `times` calls of this kind whose body contains the marker.
    pub fn plan(&self, method: Method, path: &'static str, marker: &str, times: usize, fault: Fault) {
        let planned = Planned { method, path, marker: marker.to_owned(), left: times, fault };
        self.proxy.planned.lock().unwrap().push(planned);
    }

    /// Releases all delayed answers, and delays no further ones.
    pub fn release(&self) {
        self.proxy.free.send_replace(true);
    }

    /// The requests of the host so far, in order.
    pub fn seen(&self) -> Vec<RecordedRequest> {
        self.proxy.seen.lock().unwrap().clone()
    }

    /// The requests of one delivery to one call of the API.
    pub fn seen_of(&self, delivery: &str, method: &Method, path: &str) -> Vec<RecordedRequest> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.delivery() == Some(delivery) && seen.is(method, path));
        seen
    }

    /// Waits until the host has sent this many of these requests.
    pub async fn asked_for(&self, method: &Method, path: &str, times: usize) {
        until(&format!("{times} × {method} {path} at the platform"), async || {
            (self.seen().iter().filter(|seen| seen.is(method, path)).count() >= times).then_some(())
        })
        .await;
    }

    /// Clears the recorded requests.
    pub fn forget(&self) {
        self.proxy.seen.lock().unwrap().clear();
    }

    /// Sends a user's message to a module, in a new chat or an existing one.
    pub async fn ask(&self, module: &str, text: &str, chat: Option<&str>) -> Question {
        let sent = self.proxy.client.post(format!("{}{API}/space/message", self.proxy.target));
        let sent = sent
            .bearer_auth(local::API_KEY)
            .header("x-app-id", local::APP_ID)
            .header("x-company-id", local::COMPANY_ID)
            .header("x-user-id", local::USER_ID)
            .header("x-api-version", "2023-12-06")
            .json(&json!({ "assistantId": format!("assistant_{module}"), "text": text, "chatId": chat }));
        let message: Value = sent.send().await.unwrap().json().await.unwrap();
        let chat = message["chatId"].as_str().unwrap_or_else(|| panic!("no chat in {message}")).to_owned();
        let messages = self.messages(&chat).await;
        let place = messages.iter().position(|known| known["id"] == message["id"]).unwrap();
        let reply = messages[place + 1]["id"].as_str().unwrap().to_owned();
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let event = json!({
            "id": format!("evt_{number}"),
            "version": "1.0.0",
            "event": "unique.chat.external-module.chosen",
            "createdAt": "1700000000",
            "userId": local::USER_ID,
            "companyId": local::COMPANY_ID,
            "payload": {
                "name": module,
                "description": "",
                "configuration": {},
                "chatId": chat,
                "assistantId": format!("assistant_{module}"),
                "userMessage": { "id": message["id"], "text": text, "createdAt": "2026-01-01T00:00:00.000Z" },
                "assistantMessage": { "id": reply, "createdAt": "2026-01-01T00:00:00.000Z" },
            },
        });
        Question { chat, reply, event }
    }

    /// The messages of a chat with their steps, read from the platform.
    pub async fn messages(&self, chat: &str) -> Vec<Value> {
        let url = format!("{}/local/chats/{chat}", self.proxy.target);
        let whole: Value = self.proxy.client.get(url).send().await.unwrap().json().await.unwrap();
        whole["messages"].as_array().unwrap().clone()
    }

    /// The reply to a question, read from the platform.
    pub async fn reply(&self, question: &Question) -> Reply {
        let messages = self.messages(&question.chat).await;
        Reply(messages.into_iter().find(|message| message["id"] == *question.reply).unwrap())
    }
}

/// A reply on the platform.
#[derive(Debug)]
pub struct Reply(Value);

impl Reply {
    /// Its text.
    pub fn text(&self) -> &str {
        self.0["text"].as_str().unwrap_or_default()
    }

    /// Reports whether it is final.
    pub fn is_complete(&self) -> bool {
        !self.0["completedAt"].is_null()
    }

    /// Its steps: order, text and status.
    pub fn steps<'a>(&'a self) -> Vec<(i64, &'a str, &'a str)> {
        let steps = self.0["steps"].as_array().unwrap().iter();
        let fields = |step: &'a Value| {
            (step["order"].as_i64().unwrap(), step["text"].as_str().unwrap(), step["status"].as_str().unwrap())
        };
        steps.map(fields).collect()
    }

    /// The statuses of its steps.
    pub fn statuses(&self) -> Vec<&str> {
        self.steps().into_iter().map(|(_, _, status)| status).collect()
    }
}

/// The base URL of the platform's API for one life of a host, so that late requests of one life aren't attributed to
/// the next.
pub fn api_base(origin: &str, life: u32) -> String {
    format!("{origin}/{life}{API}")
}

fn serve(listener: TcpListener, proxy: Arc<Proxy>) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let routes = Router::new().fallback(pass).with_state(proxy);
    let server = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    (stop, tokio::spawn(async move { server.await.unwrap() }))
}

async fn pass(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // An interrupted request doesn't count.
    let Ok(body) = to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    let fault = proxy.note(&parts, &body);
    // Runs to completion even if the host disconnects, as on a real platform.
    let answer = tokio::spawn(async move {
        match fault {
            None => proxy.forward(parts, body).await,
            Some(Fault::Hold) => {
                let answer = proxy.forward(parts, body).await;
                let _ = proxy.free.subscribe().wait_for(|free| *free).await;
                answer
            }
            Some(Fault::Answer(status, retry_after, text)) => {
                let mut headers = HeaderMap::new();
                headers.extend(retry_after.map(|seconds| (header::RETRY_AFTER, seconds.into())));
                (StatusCode::from_u16(status).unwrap(), headers, text).into_response()
            }
        }
    });
    answer.await.unwrap()
}

impl Proxy {
    /// Records a request, and returns the fault to inject.
    fn note(&self, parts: &request::Parts, body: &Bytes) -> Option<Fault> {
        let (life, path) = parts.uri.path()[1..].split_once('/').unwrap();
        let life = life.parse().unwrap();
        let path = format!("/{path}").strip_prefix(API).unwrap().to_owned();
        let key = parts.headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let seen = RecordedRequest {
            life,
            method: parts.method.clone(),
            path,
            key,
            text: json["text"].as_str().map(str::to_owned),
        };
        let text = String::from_utf8_lossy(body);
        let mut planned = self.planned.lock().unwrap();
        let found =
            planned.iter_mut().find(|it| it.left > 0 && seen.is(&it.method, it.path) && text.contains(&it.marker));
        let fault = found.map(|planned| {
            planned.left -= 1;
            planned.fault.clone()
        });
        self.seen.lock().unwrap().push(seen);
        fault
    }

    async fn forward(&self, parts: request::Parts, body: Bytes) -> Response {
        let path = parts.uri.path_and_query().unwrap().as_str();
        let path = &path[path.find(API).unwrap()..];
        let mut headers = parts.headers;
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let request = self.client.request(parts.method, format!("{}{path}", self.target)).headers(headers).body(body);
        let answer = request.send().await.unwrap();
        let (status, kind) = (answer.status(), answer.headers().get(header::CONTENT_TYPE).cloned());
        let kind: HeaderMap = kind.map(|kind| (header::CONTENT_TYPE, kind)).into_iter().collect();
        (status, kind, answer.bytes().await.unwrap()).into_response()
    }
}

impl Drop for FaultyPlatform {
    fn drop(&mut self) {
        self.release();
    }
}
