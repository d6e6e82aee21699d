//! Tests of streamed answers and their failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use modhost_core::limits::LimitReached;
use modhost_core::memory_budget::{MemoryBudget, MemoryCounter};
use modhost_platform::{Caller, CompletionStream, Ending, ErrorKind, Usage};
use serde_json::json;
use tokio::sync::oneshot;

use crate::client::{KEY, caller, question, read};
use crate::server::{Reply, Server, answer, answer_with};

const EVENTS: &[(&str, &str)] = &[("content-type", "text/event-stream; charset=utf-8")];

/// Returns an event stream with this body.
fn streamed(body: impl Into<Body>) -> Reply {
    answer_with(200, EVENTS, body)
}

fn says(text: &str) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
}

const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[tokio::test]
async fn streams_an_answer_in_pieces() {
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let other = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"another choice\"}}]}\n\n";
    let body = [
        ": OPENROUTER PROCESSING\n\n",
        role,
        &says("Over"),
        "event: x\nid: 7\n",
        &says(" thére"),
        other,
        STOP,
        USAGE,
        DONE,
    ];
    // The result doesn't depend on how the body is split.
    for size in [1, 7, 4096] {
        let body = body.concat().into_bytes();
        let server = Server::always(move || {
            let chunks: Vec<_> =
                body.chunks(size).map(|it| Ok::<_, std::io::Error>(Bytes::copy_from_slice(it))).collect();
            streamed(Body::from_stream(stream::iter(chunks)))
        })
        .await;
        let (pieces, ending) = read(&server.client(), &question()).await;
        assert_eq!(pieces, ["Over", " thére"]);
        let usage = Some(Usage { prompt_tokens: 7, completion_tokens: 2 });
        assert_eq!(ending.unwrap(), Ending { finish_reason: Some("stop".into()), usage });
        let request = server.request();
        assert_eq!(request.header("accept"), Some("text/event-stream"));
        let expected = json!({
            "model": "own-model",
            "messages": [{ "role": "user", "content": "Where?" }],
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        assert_eq!(request.json(), expected);
    }
}

/// Returns the pieces of a stream that fails, and its error.
async fn broken(body: String) -> (Vec<String>, ErrorKind, String) {
    let server = Server::always(move || streamed(body.clone())).await;
    let (pieces, ending) = read(&server.client(), &question()).await;
    assert_eq!(server.requests().len(), 1, "a started answer was requested again");
    let error = ending.unwrap_err();
    (pieces, error.kind, error.message)
}

#[tokio::test]
async fn reports_why_a_stream_failed() {
    let error = |error: serde_json::Value| format!("data: {}\n\n", json!({ "error": error }));
    let start = "POST /chat/completions: the answer broke off: ";
    for (broken_by, kind, why) in [
        (String::new(), ErrorKind::Unavailable, "it stopped without having come to its end"),
        ("data: {\"choices\":".into(), ErrorKind::Unavailable, "it stopped without having come to its end"),
        (error(json!({ "message": "Overloaded", "type": "server_error" })), ErrorKind::Unavailable, "Overloaded"),
        (error(json!(KEY)), ErrorKind::Unavailable, "(api key)"),
        (
            error(json!({ "message": "Slow down", "type": "tokens", "code": "rate_limit_exceeded" })),
            ErrorKind::RateLimited(None),
            "Slow down, code rate_limit_exceeded",
        ),
        (error(json!({ "message": "Too long", "code": 400 })), ErrorKind::Invalid, "Too long, code 400"),
        (
            error(json!({ "message": "Too long", "type": "invalid_request_error", "code": null })),
            ErrorKind::Invalid,
            "Too long",
        ),
        (error(json!({ "message": "Gone", "code": 504 })), ErrorKind::Timeout, "Gone, code 504"),
        (
            format!("data: {}\n\n", "x".repeat((1 << 20) + 1)),
            ErrorKind::Unavailable,
            "an event of it is larger than 1048576 bytes",
        ),
    ] {
        for before in ["", "Over"] {
            let prefix = if before.is_empty() { String::new() } else { says(before) };
            let (pieces, actual_kind, message) = broken(prefix + &broken_by).await;
            assert_eq!(pieces.concat(), before, "{why}");
            assert_eq!((actual_kind, message), (kind, format!("{start}{why}")));
        }
    }
    let (_, kind, message) = broken("data: {nonsense}\n\n".into()).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(message.contains("an event can't be understood (") && message.ends_with(": \"{nonsense}\""), "{message}");
}

/// A broken connection is distinguished from an answer that ends early.
#[tokio::test]
async fn reports_a_broken_connection() {
    let (cut, is_cut) = oneshot::channel::<()>();
    let broken = async {
        is_cut.await.unwrap();
        Err(std::io::Error::other("cut"))
    };
    let body = stream::iter([Ok(Bytes::from(says("Over")))]).chain(stream::once(broken));
    let server = Server::scripted([streamed(Body::from_stream(body))]).await;
    let mut stream = server.client().stream(&caller(), &question()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().as_deref(), Some("Over"));
    cut.send(()).unwrap();
    let error = stream.next().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("the answer broke off: the connection broke ("), "{error}");
}

#[tokio::test]
async fn accepts_a_finish_reason_without_done() {
    let server = Server::always(|| streamed(says("There") + STOP)).await;
    let (pieces, ending) = read(&server.client(), &question()).await;
    assert_eq!((pieces.concat().as_str(), ending.unwrap().finish_reason.as_deref()), ("There", Some("stop")));
}

#[tokio::test]
async fn returns_a_complete_answer_as_one_piece() {
    let body = r#"{"choices":[{"message":{"content":"There"},"finish_reason":"length"}],"usage":{"prompt_tokens":1}}"#;
    let server = Server::always(move || answer_with(200, &[("content-type", "application/json")], body)).await;
    let (pieces, ending) = read(&server.client(), &question()).await;
    let usage = Some(Usage { prompt_tokens: 1, completion_tokens: 0 });
    assert_eq!(
        (pieces, ending),
        (vec!["There".to_owned()], Ok(Ending { finish_reason: Some("length".into()), usage }))
    );

    let server = Server::always(|| answer_with(200, &[("content-type", "text/html")], "<b>Welcome</b>")).await;
    let (_, ending) = read(&server.client(), &question()).await;
    assert!(ending.unwrap_err().message.ends_with(": \"<b>Welcome</b>\""));
}

#[tokio::test]
async fn retries_until_the_answer_starts() {
    let server =
        Server::scripted([answer(429, "{}"), answer(403, r#"{"error": {"message": "Not this model"}}"#)]).await;
    let error = server.client().stream(&caller(), &question()).await.err().unwrap();
    assert_eq!(error.to_string(), "denied: POST /chat/completions (after 2 attempts): 403 Forbidden: Not this model");
}

/// Memory that has room for 100,000 bytes.
#[derive(Default)]
struct Memory(AtomicU64);

impl MemoryCounter for Memory {
    fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        let fits = |used| Some(used + bytes).filter(|used| *used <= 100_000);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|_| LimitReached::TenantMemory(100_000))
    }

    fn release(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// An event counts until the caller has read it.
#[tokio::test]
async fn unread_events_count_as_the_callers_memory() {
    for (size, fits) in [(20_000, true), (110_000, false)] {
        let server =
            Server::always(move || streamed([says(&"x".repeat(size)).repeat(3), STOP.into(), DONE.into()].concat()));
        let (server, memory) = (server.await, Arc::new(Memory::default()));
        let caller = Caller { memory: MemoryBudget::new(memory.clone()), ..caller() };
        let mut stream = server.client().stream(&caller, &question()).await.unwrap();
        for _ in 0..3 {
            match stream.next().await {
                Ok(piece) => assert!(fits && piece.unwrap().len() == size),
                Err(error) => {
                    assert!(!fits && error.message.contains("limit reached: tenant memory"), "{error}");
                    break;
                }
            }
        }
        drop(stream);
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn limits_the_size_of_an_answer() {
    let server = Server::always(|| {
        let piece = Bytes::from(says(&"x".repeat(1000)));
        streamed(Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()))))
    })
    .await;
    let mut stream = server.client().stream(&caller(), &question()).await.unwrap();
    let mut read = 0;
    let error = loop {
        match stream.next().await {
            Ok(piece) => read += piece.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert!(error.message.ends_with("it is larger than 16777216 bytes"), "{error}");
    assert!((15_000_000..16_777_216).contains(&read), "{read}");
}
