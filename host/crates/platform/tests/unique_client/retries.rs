//! Tests of retries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use modhost_platform::unique::{Unique, UniqueSettings};
use modhost_platform::{CompletionRequest, ErrorKind, HttpClients, Platform};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::calls::{self, Call};
use crate::client::{caller, settings};
use crate::server::{Reply, Server, answer, answer_with};

#[tokio::test]
async fn retries_only_repeatable_calls() {
    // A status with its headers and body; the attempts of a repeatable call, and of another call.
    type Case = (u16, &'static [(&'static str, &'static str)], &'static str, usize, usize);
    let cases: [Case; 14] = [
        (400, &[], "{}", 1, 1),
        (401, &[], "{}", 1, 1),
        (403, &[], "{}", 1, 1),
        (404, &[], "{}", 1, 1),
        (409, &[], "{}", 1, 1),
        (429, &[], "{}", 4, 4),
        (429, &[("retry-after", "0")], "{}", 4, 4),
        (500, &[], "{}", 4, 1),
        (500, &[("retry-after", "0")], "{}", 4, 1),
        (502, &[], "<html>", 4, 1),
        (503, &[], "{}", 4, 1),
        (503, &[("retry-after", "0")], "{}", 4, 4),
        (504, &[], "{}", 4, 1),
        (500, &[], r#"{"error": {"message": "no", "params": {"retryable": false}}}"#, 1, 1),
    ];
    for (status, headers, body, repeatable, other) in cases {
        for call in Call::ALL {
            let server = Server::always(move || answer_with(status, headers, body)).await;
            call.make(&server.client()).await.unwrap_err();
            let expected = if call.is_repeatable() { repeatable } else { other };
            assert_eq!(server.requests().len(), expected, "{call:?} answered {status} {headers:?} {body}");
        }
    }
}

/// Starts a server that reads a little and closes the connection. Returns its address and the count of its connections.
async fn start_closing_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = connection.read(&mut [0; 16]).await;
        }
    });
    (address, count)
}

#[tokio::test]
async fn retries_a_broken_connection_only_if_repeatable() {
    for call in Call::ALL {
        let (address, count) = start_closing_server().await;
        let client = Unique::new(settings(address), HttpClients::new().unwrap()).unwrap();
        let error = call.make(&client).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{call:?}");
        assert!(error.message.contains("may have been carried out"), "{error}");
        assert_eq!(count.load(Ordering::SeqCst), if call.is_repeatable() { 4 } else { 1 }, "{call:?}");
    }
}

#[tokio::test]
async fn always_retries_a_refused_connection() {
    for call in Call::ALL {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = Unique::new(settings(closed), HttpClients::new().unwrap()).unwrap();
        let error = call.make(&client).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{call:?}");
        assert!(error.message.contains("(after 4 attempts): can't connect to 127.0.0.1:"), "{error}");
    }
}

#[tokio::test]
async fn repeats_the_same_request() {
    for call in Call::ALL {
        let server = Server::scripted([answer(429, ""), answer(429, ""), answer(200, call.good_answer())]).await;
        call.make(&server.client()).await.unwrap();
        let [first, second, third] = server.requests().try_into().unwrap();
        assert_eq!(first.body, second.body, "{call:?}");
        assert_eq!(first.body, third.body, "{call:?}");
        assert_eq!(first.headers, third.headers, "{call:?}");
    }
}

#[tokio::test]
async fn makes_the_configured_number_of_attempts() {
    for (attempts, expected) in [(0, 1), (1, 1), (2, 2), (7, 7)] {
        let server = Server::always(|| answer(429, "")).await;
        let client = server.client_with(|settings| settings.retry.attempts = attempts);
        Call::Search.make(&client).await.unwrap_err();
        assert_eq!(server.requests().len(), expected);
    }
}

#[tokio::test]
async fn does_not_wait_beyond_the_time_limit() {
    let in_an_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&in_an_hour).unwrap();
    for value in [date, "3600".to_owned(), u64::MAX.to_string()] {
        let header = value.clone();
        let server =
            Server::always(move || answer_with(429, &[("retry-after", &header)], r#"{"error": "slow down"}"#)).await;
        let error = Call::Search.make(&server.client()).await.unwrap_err();
        let ErrorKind::RateLimited(Some(wait)) = error.kind else { panic!("{value}: {error:?}") };
        // The date is parsed a moment after it was written; an hour is far from both bounds.
        assert!(wait > Duration::from_secs(3000), "{value}: {wait:?}");
        assert_eq!(server.requests().len(), 1, "{value}");
    }
}

#[tokio::test]
async fn retries_at_once_after_a_past_date() {
    let headers = &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let server = Server::always(|| answer_with(503, headers, "")).await;
    Call::Complete.make(&server.client()).await.unwrap_err();
    assert_eq!(server.requests().len(), 4);
}

/// Returns a client whose calls of this kind may take one second, enough to reach the server on a busy machine.
fn with_short_timeout(server: &Server, call: Call) -> Unique {
    let is_completion = matches!(call, Call::Complete | Call::CompleteInto);
    server.client_with(|UniqueSettings { timeout, call_timeout, .. }| {
        *(if is_completion { timeout } else { call_timeout }) = Duration::from_secs(1);
    })
}

#[tokio::test]
async fn times_out_without_an_answer() {
    let check = |call: Call| async move {
        let server = Server::always(|| Reply::Silence).await;
        let error = call.make(&with_short_timeout(&server, call)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout, "{call:?}");
        assert!(error.message.ends_with(": no answer within 1s; the request may have been carried out"), "{error}");
        assert_eq!(server.requests().len(), 1, "{call:?}");
    };
    join_all(Call::ALL.map(check)).await;
}

#[tokio::test]
async fn limits_the_time_of_all_attempts_together() {
    let server = Server::scripted([answer(503, ""), Reply::Silence]).await;
    let error = Call::Search.make(&with_short_timeout(&server, Call::Search)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.message.contains("(after 2 attempts): no answer within 1s"), "{error}");
}

#[tokio::test]
async fn applies_the_shorter_timeout_of_a_completion() {
    let check = |(requested, configured)| async move {
        let server = Server::always(|| Reply::Silence).await;
        let client = server.client_with(|settings| settings.timeout = Duration::from_secs(configured));
        let request = CompletionRequest { timeout: Some(Duration::from_secs(requested)), ..calls::completion() };
        let error = client.complete(&caller(), &request).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert!(error.message.contains("within 1s"), "{error}");
        assert_eq!(server.request().json()["timeout"], requested * 1000);
    };
    join_all([(1, 600), (600, 1)].map(check)).await;
}
