//! Tests of the public listener's limits on time and size.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use reqwest::{Body, StatusCode, Version};

use super::harness::{Host, Settings, Wire, head, http, now, request, sign, signed_post, until, user_message};

/// Limits that are short enough for tests.
const SHORT: &str = r#"limits = { header_timeout = "300ms", body_timeout = "300ms", idle_timeout = "300ms" }"#;

fn body() -> Vec<u8> {
    user_message("evt_1", "hello").to_string().into_bytes()
}

/// Checks that a host still accepts events.
async fn assert_accepts_events(host: &Host) {
    let answer = signed_post(&host.webhook, body()).await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
}

/// A client that uses HTTP/2 without an upgrade (prior knowledge).
fn http2() -> reqwest::Client {
    http(); // installs the TLS provider
    reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()
}

#[tokio::test]
async fn closes_connections_with_incomplete_headers() {
    let limits = r#"limits = { header_timeout = "300ms" }"#;
    let host = Settings::new().server(limits).start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice();
    let half = head(&body(), "content-length: 300\r\n").into_bytes();
    let mut silent = Vec::new();
    for received in [b"".as_slice(), b"P", b"POST /webhook HT", b"PRI * HTTP/2.0", preface, &half[..half.len() - 2]] {
        let mut wire = Wire::to(&host).await;
        wire.send(received).await;
        silent.push(wire);
    }
    assert_accepts_events(&host).await;
    let received = join_all(silent.into_iter().map(Wire::closed)).await;
    assert!(
        received.iter().all(|received| !received.contains("HTTP/1.1 ")),
        "a 4xx would expire the endpoint: {received:?}"
    );
    host.logged(&["connection closed by the host", "header_timeout", "client=127.0.0.1"]).await;
    // A byte now and then doesn't extend the time.
    assert_eq!(Wire::to(&host).await.send_slowly([&half, vec![b'x'; 3000].as_slice()].concat()).await, "");
    assert_accepts_events(&host).await;
}

#[tokio::test]
async fn header_timeout_applies_to_every_request() {
    let limits = r#"limits = { header_timeout = "300ms", idle_timeout = "1h" }"#;
    let host = Settings::new().server(limits).start().await;
    let mut wire = Wire::to(&host).await;
    wire.send(request(&body())).await;
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
    // A connection may be idle for longer than `header_timeout`.
    tokio::time::sleep(Duration::from_millis(600)).await;
    wire.send(request(&body())).await;
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
    wire.send("POST /webhook HTTP/1.1\r\nhost:").await;
    assert_eq!(wire.closed().await, "");
}

#[tokio::test]
async fn limits_the_time_for_a_body() {
    let host = Settings::new().server(SHORT).start().await;
    let body = body();
    let chunked = "transfer-encoding: chunked\r\n";
    let sized = "content-length: 5000\r\n";
    let started = [
        (sized, String::new()),
        (sized, String::from_utf8_lossy(&body).into_owned()),
        (chunked, String::new()),
        (chunked, "a\r\n0123456789\r\n".to_owned()),
    ];
    for (lines, sent) in started {
        let mut wire = Wire::to(&host).await;
        wire.send(head(&body, lines) + &sent).await;
        assert_retryable(&wire.closed().await);
    }
    assert_accepts_events(&host).await;
    // Sending byte by byte doesn't extend the time.
    for (lines, sent) in [(sized, "x".repeat(5000)), (chunked, "1\r\nx\r\n".repeat(1000))] {
        let mut wire = Wire::to(&host).await;
        wire.send(head(&body, lines)).await;
        assert_retryable(&wire.send_slowly(sent).await);
    }
    host.logged(&["WARN", "the body took longer than 300ms", "body_timeout", "source=unique", "client=127.0.0.1"])
        .await;
    assert_accepts_events(&host).await;
}

/// Checks that the platform will retry and that the connection is closed.
fn assert_retryable(answer: &str) {
    let answer = answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 503 "), "{answer:?}");
    assert!(answer.contains("retry-after: 10\r\n") && answer.contains("connection: close\r\n"), "{answer:?}");
    assert!(answer.contains("the body took longer than 300ms"), "{answer:?}");
}

#[tokio::test]
async fn slow_http2_stream_does_not_block_others() {
    let host = Settings::new().server(r#"limits = { body_timeout = "300ms" }"#).start().await;
    let (client, body) = (http2(), body());
    let post = |body: Body| {
        let request = client.post(&host.webhook).header("x-unique-created-at", now().to_string());
        request.header("x-unique-signature", sign(&self::body())).body(body).send()
    };
    let never: BoxStream<'static, Result<Vec<u8>, std::io::Error>> =
        stream::iter([Ok(vec![b'{'])]).chain(stream::pending()).boxed();
    let (slow, quick) = futures::join!(post(Body::wrap_stream(never)), post(body.into()));
    let (slow, quick) = (slow.unwrap(), quick.unwrap());
    assert_eq!((quick.version(), quick.status()), (Version::HTTP_2, StatusCode::OK));
    assert_eq!((slow.version(), slow.status()), (Version::HTTP_2, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(slow.headers()["retry-after"], "10");
}

#[tokio::test]
async fn accepts_a_slow_body_within_the_time_limit() {
    let host = Settings::new().start().await;
    let mut wire = Wire::to(&host).await;
    for byte in request(&body()) {
        wire.send([byte]).await;
    }
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
    // The same in chunks of one byte.
    let chunks: String = String::from_utf8(body()).unwrap().chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    wire.send(head(&body(), "transfer-encoding: chunked\r\n") + &chunks + "0\r\n\r\n").await;
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn closes_idle_connections() {
    let host = Settings::new().server(SHORT).start().await;
    let mut wire = Wire::to(&host).await;
    wire.send(request(&body())).await;
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.closed().await, "");
    // The admin listener has the same limits.
    let admin = host.admin.strip_prefix("http://").unwrap().parse().unwrap();
    let mut wire = Wire::from([127, 0, 0, 1].into(), admin).await;
    wire.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
    wire.closed().await;
    assert_eq!(Wire::from([127, 0, 0, 1].into(), admin).await.closed().await, "");
}

#[tokio::test]
async fn limits_the_size_of_headers() {
    let host = Settings::new().start().await;
    let body = body();
    let length = format!("content-length: {}\r\n", body.len());
    let large = |bytes: usize| format!("{length}x-large: {}\r\n", "x".repeat(bytes));
    let many = |count: usize| length.clone() + &(0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    for (lines, status) in [(large(60 << 10), "200"), (large(70 << 10), "431"), (many(90), "200"), (many(110), "431")] {
        let mut wire = Wire::to(&host).await;
        wire.send([head(&body, &lines).as_bytes(), &body].concat()).await;
        let answer = wire.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    }
    host.logged(&["WARN", "more or larger headers", "max_header_size", "client=127.0.0.1"]).await;
    let post = |bytes: usize| http2().post(&host.webhook).header("x-large", "x".repeat(bytes)).body("{}").send();
    assert_eq!(
        post(60 << 10).await.unwrap().status(),
        StatusCode::BAD_REQUEST,
        "refused only for its missing signature"
    );
    // Closing the connection also counts as a refusal.
    assert!(post(70 << 10).await.is_ok_and(|it| it.status().as_u16() == 431) | post(1 << 20).await.is_err());
    assert_accepts_events(&host).await;
}

#[tokio::test]
async fn header_limits_are_configurable() {
    let limits = r#"limits = { max_headers = 32, max_header_size = "8KiB" }"#;
    let host = Settings::new().server(limits).start().await;
    let many: String = (0..33).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("x-large: {}\r\n", "x".repeat(9 << 10));
    for lines in [many, large] {
        let mut wire = Wire::to(&host).await;
        wire.send(head(b"", &lines)).await;
        assert!(wire.closed().await.starts_with("HTTP/1.1 431 "));
    }
    assert_accepts_events(&host).await;
}

#[tokio::test]
async fn malformed_requests_disturb_no_other_client() {
    let host = Settings::new().start().await;
    let post = "POST /webhook HTTP/1.1\r\nhost: x\r\n";
    let nonsense: &[(&str, &[u8])] = &[
        ("nothing but a line end", b"\r\n\r\n\r\n\r\n"),
        ("no HTTP", b"hello\r\n\r\n"),
        ("a bad method", b"P(ST / HTTP/1.1\r\n\r\n"),
        ("a long method", &[b'A'; 70_000]),
        ("no path", b"POST HTTP/1.1\r\n\r\n"),
        ("a bad path", b"POST \x01\x02 HTTP/1.1\r\n\r\n"),
        ("an unknown version", b"POST /webhook HTTP/9.9\r\n\r\n"),
        ("HTTP/0.9", b"GET /webhook\r\n\r\n"),
        ("a null byte in a header", &[post.as_bytes(), b"x: a\0b\r\n\r\n"].concat()),
        ("a header without a colon", &[post.as_bytes(), b"nonsense\r\n\r\n"].concat()),
        ("a header with a space in its name", &[post.as_bytes(), b"content length: 3\r\n\r\nabc"].concat()),
        ("a folded header", &[post.as_bytes(), b"x: a\r\n b\r\n\r\n"].concat()),
        ("two lengths", &[post.as_bytes(), b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"].concat()),
        ("a negative length", &[post.as_bytes(), b"content-length: -3\r\n\r\nabc"].concat()),
        ("a signed length", &[post.as_bytes(), b"content-length: +3\r\n\r\nabc"].concat()),
        ("a length that overflows", &[post.as_bytes(), b"content-length: 99999999999999999999\r\n\r\nabc"].concat()),
        ("an unknown transfer coding", &[post.as_bytes(), b"transfer-encoding: gzip\r\n\r\nabc"].concat()),
        ("a bad chunk size", &[post.as_bytes(), b"transfer-encoding: chunked\r\n\r\nxyz\r\nabc\r\n"].concat()),
        (
            "a chunk size that overflows",
            &[post.as_bytes(), b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"].concat(),
        ),
        ("a chunk without its end", &[post.as_bytes(), b"transfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n"].concat()),
        (
            "a long chunk extension",
            &[post.as_bytes(), b"transfer-encoding: chunked\r\n\r\n3;", &[b'x'; 70_000]].concat(),
        ),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("HTTP/2 frames out of order", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    ];
    for (what, bytes) in nonsense {
        let mut wire = Wire::to(&host).await;
        wire.send(bytes).await;
        wire.shutdown_write().await;
        let answer = wire.closed().await;
        assert!(!answer.contains("HTTP/1.1 2"), "{what} was accepted: {answer:?}");
        assert_accepts_events(&host).await;
    }
    // HTTP/1.1 requires a Host header. The public listener accepts requests without one: events are signed, and no
    // route depends on the host name.
    let mut wire = Wire::to(&host).await;
    wire.send(String::from_utf8(request(&body())).unwrap().replace("host: localhost\r\n", "")).await;
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
    assert!(!host.log().contains("panic"), "{}", host.log());
}

#[tokio::test]
async fn oversized_bodies_disturb_no_other_client() {
    let host = Settings::new().start().await;
    let large = async || {
        let answer = http().post(&host.webhook).body(vec![b'x'; 3 << 20]).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "60");
    };
    let all_large = join_all((0..30).map(|_| large()));
    let all_well = async {
        for _ in 0..30 {
            assert_accepts_events(&host).await;
        }
    };
    futures::join!(all_large, all_well);
}

#[tokio::test]
async fn limits_the_total_size_of_buffered_bodies() {
    let host = Settings::new().server(r#"limits = { max_bodies = "100KiB" }"#).start().await;
    let part = "x".repeat(80 << 10);
    let sized = "content-length: 200000\r\n";
    // Each body by itself is far below `max_body`.
    let mut first = Wire::to(&host).await;
    first.send(head(&body(), sized) + &part).await;
    let mut second = Wire::to(&host).await;
    second.send(head(&body(), sized) + &part).await;
    // The host reads either of them first.
    let answer = tokio::select! {
        answer = first.answer() => answer,
        answer = second.answer() => answer,
    };
    let answer = answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 503 ") && answer.contains("retry-after: 10\r\n"), "{answer:?}");
    assert!(answer.contains("this host is receiving too much data at once"), "{answer:?}");
    host.logged(&["WARN", "`max_bodies` in [server.limits]"]).await;
    assert_accepts_events(&host).await;
    // The reservation of the other request is released with its connection.
    drop((first, second));
    until("capacity to be released", async || {
        let large = http().post(&host.webhook).body(part.clone()).send().await.unwrap();
        (large.status() != StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
}

#[tokio::test]
async fn refuses_a_content_encoding() {
    let host = Settings::new().start().await;
    let coded = |coding: &'static str| {
        let request = http().post(&host.webhook).header("x-unique-created-at", now().to_string());
        request.header("x-unique-signature", sign(&body())).header("content-encoding", coding).body(body()).send()
    };
    for coding in ["gzip", "br", "identity, deflate", "x-unknown"] {
        let answer = coded(coding).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(answer.text().await.unwrap().contains("the body has a Content-Encoding"));
    }
    host.logged(&["WARN", "compressed body", "encoding=deflate", "source=unique", "client=127.0.0.1"]).await;
    for coding in ["identity", "Identity", ""] {
        assert_eq!(coded(coding).await.unwrap().status(), StatusCode::OK, "{coding:?}");
    }
}

#[tokio::test]
async fn stopping_does_not_wait_for_slow_clients() {
    let limits = r#"limits = { header_timeout = "1h", body_timeout = "1h", idle_timeout = "1h" }"#;
    let mut host = Settings::new().server(limits).start().await;
    let mut wires = Vec::new();
    for received in [String::new(), "POST".into(), head(b"", "content-length: 5\r\n")] {
        let mut wire = Wire::to(&host).await;
        wire.send(received).await;
        wires.push(wire);
    }
    assert_accepts_events(&host).await;
    assert!(host.stop().await.success());
}

#[tokio::test]
async fn reloads_limits() {
    let host = Settings::new().start().await;
    host.save_settings(&Settings::new().server(r#"limits = { header_timeout = "200ms" }"#));
    host.logged(&["settings reloaded"]).await;
    assert_eq!(Wire::to(&host).await.closed().await, "");
    assert_accepts_events(&host).await;
}

/// Without free file descriptors, accepting fails temporarily; the listener must recover.
#[tokio::test]
async fn recovers_from_file_descriptor_exhaustion() {
    let limits = r#"limits = { header_timeout = "1h" }"#;
    let host = Settings::new().server(limits).start().await;
    assert_accepts_events(&host).await;
    let id = host.process_id();
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let limit = |files: usize| {
        let arguments = [format!("--pid={id}"), format!("--nofile={files}:")];
        assert!(std::process::Command::new("prlimit").args(arguments).status().unwrap().success());
    };
    limit(open + 4);
    let mut wires = Vec::new();
    for _ in 0..50 {
        wires.push(Wire::to(&host).await);
    }
    host.logged(&["ERROR", "cannot accept connections; retrying"]).await;
    // The host closes the connections that keep it waiting, one by one.
    assert_accepts_events(&host).await;
    limit(1024);
    assert_accepts_events(&host).await;
    until("the other connections to be accepted", async || {
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
        (open > 20).then_some(())
    })
    .await;
    assert!(host.lines(&["cannot accept connections"]) < 5, "{}", host.log());
}
