//! The event socket: authentication, subscriptions, and the end of connections.

use std::time::Duration;

use modhost_emulator::{API_KEY, APP_ID, COMPANY_ID, LocalSettings};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::help::{Local, answer, error, settings};

const CREATED: &str = "unique.chat.user-message.created";
const CHOSEN: &str = "unique.chat.external-module.chosen";

fn request(local: &Local, subscriptions: &str) -> RequestBuilder {
    request_of(local, subscriptions, COMPANY_ID)
}

fn request_of(local: &Local, subscriptions: &str, company: &str) -> RequestBuilder {
    let path = format!("/public/event-socket/events/stream?subscriptions={subscriptions}");
    local.bare(Method::GET, &path).bearer_auth(API_KEY).header("x-app-id", APP_ID).header("x-company-id", company)
}

async fn listen(local: &Local, subscriptions: &str) -> Response {
    let answer = request(local, subscriptions).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    answer
}

/// Reads the next event.
async fn next(stream: &mut Response) -> Value {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        text += std::str::from_utf8(&stream.chunk().await.unwrap().expect("an event")).unwrap();
    }
    serde_json::from_str(text.strip_prefix("data: ").unwrap()).unwrap()
}

async fn say(local: &Local, text: &str) {
    let (status, _) = local.post("/space/message", json!({ "assistantId": "assistant_Answering", "text": text })).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn subscribers_get_subscribed_events_and_no_earlier_ones() {
    let local = Local::start(settings()).await;
    say(&local, "before").await;
    let skipped = local.deliveries(2, "skipped").await;
    assert!(skipped[0]["answer"].as_str().unwrap().contains("no event socket subscribes"), "{skipped:?}");
    let (mut both, mut one) = (listen(&local, &format!("{CREATED},{CHOSEN}")).await, listen(&local, CHOSEN).await);
    say(&local, "hello").await;
    let (created, chosen) = (next(&mut both).await, next(&mut both).await);
    assert_eq!((&created["event"], &created["payload"]["text"]), (&json!(CREATED), &json!("hello")));
    assert_eq!((&chosen["event"], &chosen["companyId"]), (&json!(CHOSEN), &json!(COMPANY_ID)));
    assert_eq!(next(&mut one).await, chosen);
}

#[tokio::test]
async fn connection_closes_after_its_lifetime() {
    let lifetime = Duration::from_millis(300);
    let local = Local::start(LocalSettings { socket_lifetime: lifetime, ..settings() }).await;
    let mut stream = listen(&local, CREATED).await;
    while let Some(piece) = stream.chunk().await.unwrap() {
        assert!(piece.is_empty(), "{piece:?}");
    }
    say(&local, "hello").await;
    local.deliveries(2, "skipped").await;
}

#[tokio::test]
async fn shutdown_closes_connections() {
    let local = Local::start(settings()).await;
    let mut stream = listen(&local, CREATED).await;
    local.platform.shutdown().await;
    assert_eq!(stream.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn subscribing_requires_credentials_and_event_names() {
    let local = Local::start(settings()).await;
    let path = "/public/event-socket/events/stream?subscriptions=x";
    error(answer(local.bare(Method::GET, path)).await, 401);
    error(answer(local.bare(Method::GET, path).bearer_auth("wrong")).await, 401);
    error(answer(local.bare(Method::GET, path).bearer_auth(API_KEY).header("x-app-id", "app_2")).await, 401);
    error(answer(request_of(&local, "x", "company_2")).await, 403);
    assert!(error(answer(request(&local, "")).await, 400).contains("subscriptions"));
}
