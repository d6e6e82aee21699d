//! The server side of a stream (of an event socket or a language model), controlled byte by byte by the test.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::PATIENCE;

/// A listener that the host connects to.
pub struct Stream {
    listener: TcpListener,
}

/// A connection of the host.
pub struct StreamConnection {
    socket: TcpStream,
    /// Its request, up to the empty line.
    pub request: String,
    body: Vec<u8>,
}

impl Stream {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// The address, for `url` of a source.
    pub fn url(&self) -> String {
        format!("http://{}/stream", self.listener.local_addr().unwrap())
    }

    /// The address, for `api_base` of a completion.
    pub fn api_base(&self) -> String {
        format!("http://{}/v1", self.listener.local_addr().unwrap())
    }

    /// Accepts the next connection without answering its request.
    pub async fn accept(&self) -> StreamConnection {
        let accept = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (mut socket, _) = accept.expect("the host never connected").unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.expect("a whole request"));
        }
        let request = String::from_utf8(request).unwrap();
        // Also if the test doesn't look at the body: closing a socket with unread bytes resets the connection, and then the
        // host may lose the end of the answer.
        let head = request.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        socket.read_exact(&mut body).await.expect("a whole body");
        StreamConnection { socket, request, body }
    }

    /// Accepts the next connection and starts an event stream on it.
    pub async fn opened(&self) -> StreamConnection {
        let mut line = self.accept().await;
        line.begin().await;
        line
    }

    /// Reports whether another connection arrives within this time.
    pub async fn is_asked_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.accept()).await.is_ok()
    }
}

impl StreamConnection {
    /// Answers with a status and an empty body.
    pub async fn refuse(mut self, status: &str, headers: &str) {
        self.write(&format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")).await;
    }

    /// Returns the body of the request, which is JSON.
    pub fn body(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Starts an event stream.
    pub async fn begin(&mut self) {
        self.begin_as("content-type: text/event-stream; charset=utf-8\r\n").await;
    }

    /// Starts an event stream with these headers.
    pub async fn begin_as(&mut self, headers: &str) {
        self.write(&format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n")).await;
    }

    /// Sends a chunk of a language model's answer.
    pub async fn send_chunk(&mut self, text: &str) {
        self.event(&json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] })).await;
    }

    /// Ends a language model's answer, like OpenAI.
    pub async fn done(mut self) {
        self.event(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] })).await;
        self.event(&json!({ "choices": [], "usage": { "prompt_tokens": 12, "completion_tokens": 3 } })).await;
        self.send("data: [DONE]\n\n").await;
        self.end().await;
    }

    /// Sends a part of the stream; returns whether the host still reads.
    pub async fn send(&mut self, piece: &str) -> bool {
        self.write(&format!("{:x}\r\n{piece}\r\n", piece.len())).await
    }

    /// Sends an event.
    pub async fn event(&mut self, event: &Value) {
        self.send(&format!("data: {event}\n\n")).await;
    }

    /// Ends the stream cleanly.
    pub async fn end(mut self) {
        self.write("0\r\n\r\n").await;
    }

    /// Waits until the host closes the connection.
    pub async fn closed(mut self) {
        let read = async { while self.socket.read_u8().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, read).await.expect("the host to close the connection");
    }

    /// Returns whether the write succeeded; the host may have closed the connection, which some tests expect.
    async fn write(&mut self, text: &str) -> bool {
        self.socket.write_all(text.as_bytes()).await.is_ok()
    }
}
