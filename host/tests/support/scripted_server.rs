//! A server that records requests and answers from a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

/// The server's reaction to a request.
pub enum Reply {
    Answer(Response),
    /// No response; the connection stays open.
    Silence,
}

/// A response with this status and body.
pub fn answer(status: u16, body: impl Into<Body>) -> Reply {
    answer_with(status, &[], body)
}

/// A response with this status, these headers and this body.
pub fn answer_with(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Reply::Answer(response.body(body.into()).unwrap())
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: Method,
    /// The path and query of the request line.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: String,
}

impl Recorded {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Reply>>,
    /// The reply after the script's end.
    otherwise: Mutex<Option<Box<dyn Fn() -> Reply + Send>>>,
    requests: Mutex<Vec<Recorded>>,
}

/// A server on a port of its own. It ends with the test's runtime.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Starts a server that replies with these, in turn; then with 500.
    pub async fn scripted(replies: impl IntoIterator<Item = Reply>) -> Self {
        let shared = Arc::new(Shared { script: Mutex::new(replies.into_iter().collect()), ..Shared::default() });
        Self::start(shared).await
    }

    /// Starts a server that gives every request the same reply.
    pub async fn always(reply: impl Fn() -> Reply + Send + 'static) -> Self {
        let shared = Arc::new(Shared { otherwise: Mutex::new(Some(Box::new(reply))), ..Shared::default() });
        Self::start(shared).await
    }

    async fn start(shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(serve).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared }
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The only request so far.
    pub fn request(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    shared.requests.lock().unwrap().push(Recorded {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let scripted = shared.script.lock().unwrap().pop_front();
    let reply = scripted.or_else(|| shared.otherwise.lock().unwrap().as_ref().map(|reply| reply()));
    match reply.unwrap_or_else(|| answer(500, "the script is at its end")) {
        Reply::Answer(response) => response,
        Reply::Silence => std::future::pending().await,
    }
}
