//! The far side of a stream, an event socket's or a language model's: byte by byte as the test says.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::PATIENCE;

/// What listens where the host connects to.
pub struct Stream {
    listener: TcpListener,
}

/// A connection the host has made.
pub struct Line {
    socket: TcpStream,
    /// Its request, up to the empty line.
    pub request: String,
}

impl Stream {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// The address, as `url` of a source takes it.
    pub fn url(&self) -> String {
        format!("http://{}/stream", self.listener.local_addr().unwrap())
    }

    /// The address, as `api_base` of a completion takes it.
    pub fn api_base(&self) -> String {
        format!("http://{}/v1", self.listener.local_addr().unwrap())
    }

    /// Waits for the next connection, and leaves its request unanswered.
    pub async fn asked(&self) -> Line {
        let accept = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (mut socket, _) = accept.expect("the host never connected").unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.expect("a whole request"));
        }
        Line { socket, request: String::from_utf8(request).unwrap() }
    }

    /// Waits for the next connection, and begins a stream of events on it.
    pub async fn opened(&self) -> Line {
        let mut line = self.asked().await;
        line.begin().await;
        line
    }

    /// Whether another connection is waiting for an answer right now.
    pub async fn is_asked_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.asked()).await.is_ok()
    }
}

impl Line {
    /// Answers with a status and nothing else.
    pub async fn refuse(mut self, status: &str, headers: &str) {
        self.write(&format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")).await;
    }

    /// Reads the body of the request, which is JSON.
    pub async fn body(&mut self) -> Value {
        let head = self.request.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length").trim();
        let mut body = vec![0; length.parse().unwrap()];
        self.socket.read_exact(&mut body).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Begins a stream of events.
    pub async fn begin(&mut self) {
        self.begin_as("content-type: text/event-stream; charset=utf-8\r\n").await;
    }

    /// Begins a stream of events that says by these headers what it is.
    pub async fn begin_as(&mut self, headers: &str) {
        self.write(&format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n")).await;
    }

    /// Sends a piece of a language model's answer.
    pub async fn says(&mut self, text: &str) {
        self.event(&json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] })).await;
    }

    /// Ends a language model's answer, as OpenAI's do.
    pub async fn done(mut self) {
        self.event(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] })).await;
        self.event(&json!({ "choices": [], "usage": { "prompt_tokens": 12, "completion_tokens": 3 } })).await;
        self.send("data: [DONE]\n\n").await;
        self.end().await;
    }

    /// Sends a piece of the stream; answers with whether the host still takes any.
    pub async fn send(&mut self, piece: &str) -> bool {
        self.write(&format!("{:x}\r\n{piece}\r\n", piece.len())).await
    }

    /// Sends an event.
    pub async fn event(&mut self, event: &Value) {
        self.send(&format!("data: {event}\n\n")).await;
    }

    /// Ends the stream in good order.
    pub async fn end(mut self) {
        self.write("0\r\n\r\n").await;
    }

    /// Waits until the host closes the connection.
    pub async fn closed(mut self) {
        let read = async { while self.socket.read_u8().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, read).await.expect("the host to close the connection");
    }

    /// Whether the host has taken it: it may have closed the connection, and the test says what it expects of that.
    async fn write(&mut self, text: &str) -> bool {
        self.socket.write_all(text.as_bytes()).await.is_ok()
    }
}
