//! Tests of failed answers, and of redaction.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use modhost_core::limits::LimitReached;
use modhost_core::memory_budget::{MemoryBudget, MemoryCounter};
use modhost_core::secret::Secret;
use modhost_platform::unique::Unique;
use modhost_platform::{CallError, Caller, ErrorKind, HttpClients, Platform};
use tracing_subscriber::fmt::MakeWriter;

use crate::calls::{self, Call};
use crate::client::{KEY, caller, settings};
use crate::server::{Server, answer, answer_with};

/// Returns the error of a single search attempt with this answer.
async fn search_answered(status: u16, headers: &'static [(&str, &str)], body: &'static str) -> CallError {
    let server = Server::always(move || answer_with(status, headers, body)).await;
    let client = server.client_with(|settings| settings.retry.attempts = 1);
    Call::Search.make(&client).await.unwrap_err()
}

/// Memory that has room for this many bytes, and the most that was in use.
struct Memory(u64, AtomicU64, AtomicU64);

impl MemoryCounter for Memory {
    fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        let Self(limit, used, most) = self;
        let after = used.load(Ordering::Relaxed) + bytes;
        if after > *limit {
            return Err(LimitReached::TenantMemory(*limit));
        }
        used.store(after, Ordering::Relaxed);
        most.fetch_max(after, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, bytes: u64) {
        self.1.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn answers_count_as_the_callers_memory() {
    const BYTES: usize = 100_000;
    let body = || format!("[{}]", " ".repeat(BYTES));
    for (limit, fits) in [(2 * BYTES as u64, true), (BYTES as u64, false)] {
        let server = Server::always(move || answer(200, body())).await;
        let client = server.client_with(|settings| settings.retry.attempts = 3);
        let memory = Arc::new(Memory(limit, AtomicU64::new(0), AtomicU64::new(0)));
        let caller = Caller { memory: MemoryBudget::new(memory.clone()), ..caller() };
        let found = client.search(&caller, None, &calls::query()).await;
        match found {
            Ok(_) => assert!(fits && memory.2.load(Ordering::Relaxed) >= BYTES as u64),
            Err(error) => {
                assert!(!fits && error.message.contains("limit reached: tenant memory"), "{error}");
                assert_eq!(error.kind, ErrorKind::Unavailable);
                assert_eq!(server.requests().len(), 1, "another attempt would not fit either");
            }
        }
        assert_eq!(memory.1.load(Ordering::Relaxed), 0, "the answer was dropped");
    }
}

#[tokio::test]
async fn maps_statuses_to_error_kinds() {
    for (status, kind) in [
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (405, ErrorKind::Invalid),
        (408, ErrorKind::Timeout),
        (409, ErrorKind::Invalid),
        (410, ErrorKind::NotFound),
        (413, ErrorKind::Invalid),
        (422, ErrorKind::Invalid),
        (429, ErrorKind::RateLimited(None)),
        (500, ErrorKind::Unavailable),
        (501, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
        (504, ErrorKind::Timeout),
    ] {
        assert_eq!(search_answered(status, &[], "{}").await.kind, kind, "{status}");
    }
    let limited = search_answered(429, &[("retry-after", "7")], "{}").await;
    assert_eq!(limited.kind, ErrorKind::RateLimited(Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn keeps_the_platforms_message() {
    let start = "POST /search/search: 400 Bad Request: ";
    for (body, expected) in [
        (r#"{"error": "limit is too large"}"#, "limit is too large"),
        (
            r#"{"error": {"code": "BAD_LIMIT", "message": "limit is too large", "params": {"limit": 5000}}}"#,
            r#"limit is too large, code BAD_LIMIT, params {"limit":5000}"#,
        ),
        (r#"{"code": 17, "message": "limit is too large"}"#, "limit is too large, code 17"),
        (
            r#"{"statusCode": 400, "error": "Bad Request", "message": ["limit is too large", "page is missing"]}"#,
            "Bad Request, limit is too large; page is missing",
        ),
        (
            r#"{"error": {"cause": {"status": 400, "error": {"code": "X", "message": "limit is too large"}}}}"#,
            "limit is too large, code X",
        ),
        (r#"{"error": {"cause": "limit is too large"}}"#, "limit is too large"),
        (r#"{"reason": 5}"#, r#""{"reason":5}""#),
        ("<html>\n  <b>Bad</b>\u{7}\n</html>", "\"<html> <b>Bad</b> </html>\""),
        ("[1]", "\"[1]\""),
        ("", "nothing"),
    ] {
        assert_eq!(search_answered(400, &[], body).await.message, format!("{start}{expected}"), "{body}");
    }
}

#[tokio::test]
async fn truncates_long_messages() {
    let long = "ä".repeat(5000);
    let server = Server::always(move || answer(400, format!(r#"{{"error": "{long}"}}"#))).await;
    let error = Call::Search.make(&server.client()).await.unwrap_err();
    assert_eq!(error.message.chars().count(), 1001);
    assert!(error.message.ends_with("ä…"), "{error}");

    // The body is larger than the read limit: its message is lost, but not its status.
    let server =
        Server::always(|| answer(404, format!(r#"{{"x": "{}", "error": "gone"}}"#, "y".repeat(100_000)))).await;
    let error = Call::Search.make(&server.client()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.starts_with("POST /search/search: 404 Not Found: \"{"), "{error}");
}

/// Returns the error of a call with a successful answer and this body. The call must not be repeated.
async fn error_of(call: Call, body: &'static str) -> CallError {
    let server = Server::always(move || answer(200, body)).await;
    let error = call.make(&server.client()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{call:?} {body}");
    let request = server.request();
    let path = request.path.trim_start_matches("/public/chat");
    let start = format!("{} {path}: 200 OK, but the answer can't be understood (", request.method);
    assert!(error.message.starts_with(&start), "{error}");
    error
}

#[tokio::test]
async fn quotes_an_unrecognized_answer() {
    let long: &'static str = Box::leak(format!("<html>{}", "x".repeat(1000)).into_boxed_str());
    // The client reads nothing from the other answers.
    for call in Call::ALL.into_iter().filter(|call| !call.good_answer().is_empty()) {
        let error = error_of(call, long).await;
        let beginning = format!("\"<html>{}…\"", "x".repeat(194));
        assert!(error.message.ends_with(&beginning), "{error}");
        for body in ["42", "{\"id\":"] {
            let error = error_of(call, body).await;
            assert!(error.message.ends_with(&format!("\"{body}\"")), "{error}");
        }
    }
}

#[tokio::test]
async fn rejects_answers_without_required_fields() {
    for (call, body) in [
        (Call::CreateStep, r#"{"unexpected": true}"#),
        (Call::CreateStep, ""),
        (Call::CreateMessage, r#"{"text": "Hello"}"#),
        (Call::ListMessages, r#"{"object": "list"}"#),
        (Call::ListMessages, r#"{"data": [{"text": "Hello"}]}"#),
        (Call::Search, r#"{"data": []}"#),
        (Call::Search, r#"[{"text": "Hello"}]"#),
        (Call::Complete, r#"{"choices": []}"#),
        (Call::Complete, r#"{"unexpected": true}"#),
        (Call::CompleteInto, r#"{"usage": null}"#),
    ] {
        error_of(call, body).await;
    }
}

#[tokio::test]
async fn accepts_an_empty_answer_to_a_change() {
    let server = Server::always(|| answer(204, "")).await;
    let client = server.client();
    for call in [Call::UpdateStep, Call::ShowMessage, Call::ModifyMessage] {
        call.make(&client).await.unwrap();
    }
    let message = client.modify_message(&caller(), "chat_1", "msg_a", &calls::message_change()).await.unwrap();
    assert_eq!(message.id, "msg_a");
}

#[tokio::test]
async fn limits_the_size_of_an_answer() {
    const CHUNK: Bytes = Bytes::from_static(&[b' '; 64 * 1024]);
    let endless = || answer(200, Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(CHUNK))));
    let just_over = || answer(200, vec![b' '; 16 * 1024 * 1024 + 1]);
    for server in [Server::always(endless).await, Server::always(just_over).await] {
        let error = Call::Search.make(&server.client()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.message, "POST /search/search: 200 OK, but the answer is larger than 16777216 bytes");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn accepts_a_large_answer_within_the_limit() {
    let padding = " ".repeat(16 * 1024 * 1024 - 2);
    let server = Server::always(move || answer(200, format!("[{padding}]"))).await;
    Call::Search.make(&server.client()).await.unwrap();
}

#[tokio::test]
async fn does_not_follow_redirects() {
    let elsewhere = Server::always(|| answer(200, "[]")).await;
    let location = format!("http://{}/search/search", elsewhere.address);
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        let server = Server::always(move || answer_with(status, &[("location", &location)], "")).await;
        let error = Call::Search.make(&server.client()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("redirects are not followed"), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn redacts_the_key() {
    // The platform repeats the rejected key: plain, in JSON, and where a quote is truncated.
    let bodies = [
        format!(r#"{{"error": "unknown key {KEY}"}}"#),
        format!(r#"{{"error": {{"message": "no", "params": {{"key": "{KEY}"}}}}}}"#),
        format!("{}{KEY}", "x".repeat(195)),
        format!(r#"{{"unexpected": "{KEY}"}}"#),
    ];
    for status in [200, 401, 500] {
        for body in bodies.clone() {
            let server = Server::always(move || answer(status, body.clone())).await;
            let error = Call::Search.make(&server.client()).await.unwrap_err();
            let output = format!("{error} {error:?}");
            assert!(!output.contains("ukey"), "{output}");
        }
    }
    let server = Server::always(|| answer(200, "[]")).await;
    let debug = format!("{:?} {:?}", server.client(), settings(server.address));
    assert!(!debug.contains(KEY), "{debug}");
}

/// Collects the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn logs_every_attempt_without_bodies_and_credentials() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let replies = [(200, "[]"), (503, r#"{"error": "overloaded"}"#), (200, r#"[{"id": "hit_1"}]"#)];
    let server = Server::scripted(replies.map(|(status, body)| answer(status, body))).await;
    let client = server.client();
    // The first thread that reaches a log statement caches for the process whether a subscriber is interested. That may
    // have been the thread of another test, so make one call, rebuild the cache, and start.
    Call::Search.make(&client).await.unwrap();
    tracing::callsite::rebuild_interest_cache();
    log.0.lock().unwrap().clear();
    Call::Search.make(&client).await.unwrap();

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let ours: Vec<_> = log.lines().filter(|line| line.contains("modhost_platform")).collect();
    assert_eq!(ours.len(), 2, "{log}");
    for (line, (attempt, status)) in ours.iter().zip([(1, 503), (2, 200)]) {
        for part in [
            "method=POST",
            "path=/search/search",
            &format!("attempt={attempt}"),
            &format!("status={status}"),
            "elapsed=",
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
    for secret in [KEY, "travel policy", "hit_1", "overloaded"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn rejects_invalid_header_values() {
    let server = Server::always(|| answer(200, "[]")).await;
    for caller in [
        Caller { company_id: Some("company\r\nx-admin: 1".into()), ..caller() },
        Caller { user_id: Some("user\n".into()), ..caller() },
    ] {
        let error = server.client().search(&caller, None, &calls::query()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn rejects_invalid_settings() {
    let address = "127.0.0.1:1".parse().unwrap();
    for (base, problem) in [
        ("ftp://example.com/public", "isn't an http"),
        ("data:text/plain,x", "isn't an http"),
        ("https://me:hunter2@example.com/public", "a user name or a password"),
        ("https://example.com/public?key=hunter2", "contains ? or #"),
        ("https://example.com/public#x", "contains ? or #"),
    ] {
        let mut settings = settings(address);
        settings.api_base = base.parse().unwrap();
        let error = Unique::new(settings, HttpClients::new().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("api_base ") && error.contains(problem), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for key in ["", "ukey_with_line_break\n"] {
        let mut settings = settings(address);
        settings.api_key = Secret::new(key);
        let error = Unique::new(settings, HttpClients::new().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("api_key ") && !error.contains("ukey"), "{error}");
    }
    for app_id in ["", "app\n"] {
        let mut settings = settings(address);
        settings.app_id = app_id.into();
        let error = Unique::new(settings, HttpClients::new().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("app_id "), "{error}");
    }
}
