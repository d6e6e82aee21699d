//! Tests of failed answers, of retries, and of redaction.

use std::time::Duration;

use modhost_core::secret::Secret;
use modhost_platform::nexus::{Nexus, NexusSettings};
use modhost_platform::{ErrorKind, HttpClients};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::client::{KEY, write};
use crate::server::{Reply, Server, answer, answer_with};

#[tokio::test]
async fn accepts_only_explicit_success() {
    for (status, body, expected) in [
        (200, r#"{"success": false, "error": "no such thread"}"#, "doesn't confirm that the message was written"),
        (200, r#"{"success": null}"#, "doesn't confirm that the message was written"),
        (201, "{}", "doesn't confirm that the message was written"),
        (204, "", "doesn't confirm that the message was written"),
        (200, r#"{"success": "yes"}"#, "doesn't confirm that the message was written"),
        (200, "<html>Welcome!</html>", "can't be understood"),
        (200, "[true]", "can't be understood"),
    ] {
        let server = Server::always(move || answer(status, body)).await;
        let error = write(&server.client(), "thread_1", "Hi").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{body}");
        assert!(error.message.starts_with("POST /api/public/thread/thread_1/messages: 20"), "{error}");
        assert!(error.message.contains(expected), "{error}");
        assert_eq!(server.requests().len(), 1, "{body}: the message may have been written");
    }
    let server = Server::always(|| answer(201, r#"{"success": true, "message": {"id": "m_1"}}"#)).await;
    write(&server.client(), "thread_1", "Hi").await.unwrap();
}

#[tokio::test]
async fn retries_only_if_the_message_was_certainly_not_written() {
    type Case = (u16, &'static [(&'static str, &'static str)], ErrorKind, usize);
    let cases: [Case; 7] = [
        (400, &[], ErrorKind::Invalid, 1),
        (401, &[], ErrorKind::Denied, 1),
        (404, &[], ErrorKind::NotFound, 1),
        (429, &[("retry-after", "0")], ErrorKind::RateLimited(Some(Duration::ZERO)), 4),
        (500, &[], ErrorKind::Unavailable, 1),
        (503, &[], ErrorKind::Unavailable, 1),
        (503, &[("retry-after", "0")], ErrorKind::Unavailable, 4),
    ];
    for (status, headers, kind, attempts) in cases {
        let server = Server::always(move || answer_with(status, headers, r#"{"message": "not now"}"#)).await;
        let error = write(&server.client(), "thread_1", "Hi").await.unwrap_err();
        assert_eq!(error.kind, kind, "{status}");
        assert!(error.message.contains("not now"), "{error}");
        assert_eq!(server.requests().len(), attempts, "{status} {headers:?}");
    }
    let server = Server::scripted([answer(429, ""), answer(200, r#"{"success": true}"#)]).await;
    write(&server.client(), "thread_1", "Hi").await.unwrap();
    let [first, second] = server.requests().try_into().unwrap();
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn does_not_retry_a_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let connections = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 16]).await;
        drop(connection);
        // A second connection would arrive before the error is returned.
        listener
    });
    let client = Nexus::new(NexusSettings::new(base, Secret::new(KEY)), HttpClients::new().unwrap()).unwrap();
    let error = write(&client, "thread_1", "Hi").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("may have been carried out"), "{error}");
    let listener = connections.await.unwrap();
    assert!(futures::FutureExt::now_or_never(listener.accept()).is_none(), "the request was sent twice");
}

#[tokio::test]
async fn times_out_without_an_answer() {
    let server = Server::always(|| Reply::Silence).await;
    let client = server.client_with(|settings| settings.timeout = Duration::from_millis(100));
    let error = write(&client, "thread_1", "Hi").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.message.contains("no answer within 100ms; the request may have been carried out"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn redacts_the_key() {
    for (status, body) in [(401, format!(r#"{{"error": "unknown key {KEY}"}}"#)), (200, format!("hello {KEY}"))] {
        let server = Server::always(move || answer(status, body.clone())).await;
        let client = server.client();
        let error = write(&client, "thread_1", "Hi").await.unwrap_err();
        assert!(error.message.contains("(api key)") && !error.message.contains(KEY), "{error}");
        assert!(!format!("{client:?}").contains(KEY), "{client:?}");
    }
}

#[tokio::test]
async fn rejects_invalid_settings() {
    let error = |base: &str, key: &str| {
        let settings = NexusSettings::new(base.parse().unwrap(), Secret::new(key));
        Nexus::new(settings, HttpClients::new().unwrap()).unwrap_err().to_string()
    };
    let with_password = error("https://me:hunter2@api.nexusgpt.io", KEY);
    assert!(with_password.starts_with("api_base contains a user name") && !with_password.contains("hunter2"));
    assert!(with_password.ends_with("it should look like https://api.nexusgpt.io"), "{with_password}");
    for key in ["", "nexus_key\n"] {
        let error = error("https://api.nexusgpt.io", key);
        assert!(error.starts_with("api_key is empty or contains"), "{error}");
    }
}
