//! Tests of the public listener: accepted and refused requests, and their responses.

use std::time::Duration;

use futures::stream;
use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_ingress::sources::schemes::unique;
use reqwest::{Body, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{
    Gate, Host, Settings, chat, chosen, http, now, post, read_chat, say, sign, signed_post, signed_with, until,
    user_message, wait_for_answer,
};

const MIB: usize = 1 << 20;

/// An event name that the host has no special treatment for.
const UPLOADED: &str = "unique.ingestion.content.uploaded";

/// Checks that a request was accepted.
async fn assert_accepted(answer: Response) {
    let (status, body) = (answer.status(), answer.text().await.unwrap());
    assert_eq!((status, body.as_str()), (StatusCode::OK, r#"{"success":true}"#));
}

/// Checks the status of a refused request and that its error contains these words.
async fn refused(answer: Response, status: StatusCode, words: &str) {
    let (found, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!((found, &body["success"]), (status, &json!(false)), "{body}");
    assert!(body["error"].as_str().unwrap().contains(words), "{words:?} is not in {body}");
}

/// Checks that a request is to be retried after this many seconds.
async fn assert_retry_after(answer: Response, seconds: &str) {
    assert_eq!(answer.headers().get("retry-after").map(|it| it.to_str().unwrap()), Some(seconds), "{answer:?}");
    refused(answer, StatusCode::SERVICE_UNAVAILABLE, "").await;
}

/// A signed event that no module wants, in a body of this size.
fn event_of_size(bytes: usize) -> Vec<u8> {
    let mut event = chosen("evt_large", "Nobody", "");
    let least = event.to_string().len();
    event["payload"]["description"] = "x".repeat(bytes - least).into();
    let body = event.to_string().into_bytes();
    assert_eq!(body.len(), bytes);
    body
}

/// An event of a company, with a name the host has no special treatment for.
fn uploaded(id: &str, company: Option<&str>) -> String {
    let payload = json!({ "contentId": id });
    json!({ "id": id, "version": "1.0.0", "event": UPLOADED, "companyId": company, "payload": payload }).to_string()
}

/// Posts with this signature and timestamp.
async fn post_signed(host: &Host, body: &str, signature: &str, created_at: &str) -> Response {
    post(&host.webhook, &[("x-unique-signature", signature), ("x-unique-created-at", created_at)], body.to_owned())
        .await
}

#[tokio::test]
async fn accepts_only_signed_requests() {
    let host = Settings::new().start().await;
    let body = user_message("evt_1", "hello").to_string();
    let (signature, time) = (sign(body.as_bytes()), now().to_string());
    assert_accepted(post_signed(&host, &body, &signature, &time).await).await;

    let missing = post(&host.webhook, &[("x-unique-created-at", &time)], body.clone()).await;
    refused(missing, StatusCode::BAD_REQUEST, "missing header X-Unique-Signature").await;
    let missing = post(&host.webhook, &[("x-unique-signature", &signature)], body.clone()).await;
    refused(missing, StatusCode::BAD_REQUEST, "missing header X-Unique-Created-At").await;
    refused(post(&host.webhook, &[], body.clone()).await, StatusCode::BAD_REQUEST, "missing header").await;

    let other_secret = unique::sign(&Secret::new("usig_other"), body.as_bytes());
    let changed = signature.replacen(|_| true, if signature.starts_with('0') { "1" } else { "0" }, 1);
    let prefixed = format!("sha256={signature}");
    let split = format!("{} {}", &signature[..32], &signature[32..]);
    for wrong in ["", "00", &changed, &signature[..63], &signature.to_uppercase(), &prefixed, &split, &other_secret] {
        let answer = post_signed(&host, &body, wrong, &time).await;
        refused(answer, StatusCode::BAD_REQUEST, "invalid signature").await;
    }
    let re_encoded = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&body).unwrap()).unwrap();
    for other in [re_encoded, format!("{body}\n"), body.replace("hello", "hullo")] {
        let answer = post_signed(&host, &other, &signature, &time).await;
        refused(answer, StatusCode::BAD_REQUEST, "invalid signature").await;
    }
    host.logged(&["request refused", "invalid signature", "source=unique"]).await;
    assert!(!host.log().contains(local::ENDPOINT_SECRET), "the log contains the secret");
}

/// White space around a header value isn't part of the value (RFC 9110).
#[tokio::test]
async fn ignores_white_space_around_a_signature() {
    let host = Settings::new().start().await;
    let body = user_message("evt_1", "hello").to_string();
    let answer = raw(&host, &format!("X-UNIQUE-SIGNATURE: \t {} \t", sign(body.as_bytes())), &body).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn refuses_old_timestamps() {
    let host = Settings::new().start().await;
    let body = user_message("evt_1", "hello").to_string();
    let signature = sign(body.as_bytes());
    for time in [now() - 290, now(), now() + 290] {
        assert_accepted(post_signed(&host, &body, &signature, &time.to_string()).await).await;
    }
    // A bad timestamp with a valid signature isn't a forgery: the host's own clock may be wrong.
    let too_old = [(now() - 301).to_string(), "0".into(), "-5".into(), i64::MIN.to_string()];
    for (time, words) in
        too_old.iter().map(|time| (time.clone(), "timestamp outside the tolerance of 300 seconds")).chain([
            ((now() + 400).to_string(), "timestamp more than 300 seconds ahead of this host's clock"),
            (i64::MAX.to_string(), "ahead"),
        ])
    {
        let answer = post_signed(&host, &body, &signature, &time).await;
        assert_eq!(answer.headers()["retry-after"], "60");
        refused(answer, StatusCode::SERVICE_UNAVAILABLE, words).await;
    }
    for time in ["", "soon", "1e9", "2026-01-01T00:00:00Z", "99999999999999999999"] {
        let answer = post_signed(&host, &body, &signature, time).await;
        refused(answer, StatusCode::BAD_REQUEST, "X-Unique-Created-At is not a whole number of seconds").await;
    }
    // Without a valid signature the response doesn't reveal anything about the timestamp.
    refused(post_signed(&host, &body, "00", "0").await, StatusCode::BAD_REQUEST, "invalid signature").await;
}

#[tokio::test]
async fn accepts_any_age_without_a_tolerance() {
    let host = Settings::new().source(r#"tolerance = "0s""#).start().await;
    let body = user_message("evt_1", "hello").to_string();
    let signature = sign(body.as_bytes());
    assert_accepted(post_signed(&host, &body, &signature, "0").await).await;
    refused(post_signed(&host, &body, &signature, "soon").await, StatusCode::BAD_REQUEST, "whole number").await;
    refused(post_signed(&host, &body, "00", "0").await, StatusCode::BAD_REQUEST, "invalid signature").await;
}

#[tokio::test]
async fn accepts_both_secrets_during_a_rotation() {
    let settings = Settings::new().secrets(&["env:NEW_SECRET", "env:OLD_SECRET"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
    let nowhere = [("TEST_API_BASE", "http://127.0.0.1:1"), ("TEST_APP_ID", "app"), ("TEST_API_KEY", "key")];
    let secrets = [("NEW_SECRET", "usig_new"), ("OLD_SECRET", "usig_old")];
    let host = Host::serve(folder, &[&nowhere[..], &secrets].concat(), None).await;
    let body = user_message("evt_1", "hello").to_string();
    for good in ["usig_new", "usig_old"] {
        assert_accepted(signed_with(good, &host.webhook, body.clone()).await).await;
    }
    for wrong in ["", "usig_newusig_old", "env:NEW_SECRET"] {
        let answer = signed_with(wrong, &host.webhook, body.clone()).await;
        refused(answer, StatusCode::BAD_REQUEST, "invalid signature").await;
    }
}

#[tokio::test]
async fn default_body_limit_is_one_mebibyte() {
    let host = Settings::new().start().await;
    assert_retry_after(signed_post(&host.webhook, "").await, "60").await;
    assert_accepted(signed_post(&host.webhook, event_of_size(MIB)).await).await;
    for size in [MIB + 1, 2 * MIB] {
        assert_retry_after(signed_post(&host.webhook, event_of_size(size)).await, "60").await;
        assert_retry_after(post_in_chunks(&host, event_of_size(size)).await, "60").await;
    }
    assert_accepted(post_in_chunks(&host, event_of_size(MIB)).await).await;
    host.logged(&["ERROR", "max_body=1048576", "source=unique"]).await;
}

#[tokio::test]
async fn body_limit_is_configurable() {
    let host = Settings::new().server(r#"max_body = "2MiB""#).start().await;
    assert_accepted(signed_post(&host.webhook, event_of_size(2 * MIB)).await).await;
    assert_retry_after(signed_post(&host.webhook, event_of_size(2 * MIB + 1)).await, "60").await;
}

#[tokio::test]
async fn signed_non_events_are_retried() {
    let host = Settings::new().start().await;
    let mut without_payload = user_message("evt_1", "hello");
    without_payload.as_object_mut().unwrap().remove("payload");
    let no_events = [
        "hello",
        "{",
        "[]",
        "7",
        "null",
        "{}",
        r#"{"id":null,"event":"e","payload":{}}"#,
        r#"{"id":"1","id":"2","event":"e","payload":{}}"#,
        &user_message("", "hello").to_string(),
        &without_payload.to_string(),
    ];
    for body in no_events {
        // Unique disables the endpoint on a 400.
        let answer = signed_post(&host.webhook, body).await;
        assert_eq!(answer.headers()["retry-after"], "60");
        refused(answer, StatusCode::SERVICE_UNAVAILABLE, "this is not an event").await;
    }
    assert_retry_after(signed_post(&host.webhook, b"{\"id\":\"\xff\"}").await, "60").await;
}

#[tokio::test]
async fn accepts_events_that_no_module_wants() {
    let host = Settings::test_guest("").start().await;
    assert_accepted(signed_post(&host.webhook, chosen("evt_1", "Nobody", "hello").to_string()).await).await;
    host.logged(&["no such module wants the event", "module=\"Nobody\"", "event=\"evt_1\""]).await;
    assert_accepted(signed_post(&host.webhook, user_message("evt_2", "hello").to_string()).await).await;
    assert_accepted(signed_post(&host.webhook, uploaded("evt_3", None)).await).await;
    // An unknown shape: the platform may change its payload and must not disable the endpoint when it does.
    let mut event = chosen("evt_4", "Nobody", "hello");
    event["payload"] = json!({ "name": "Nobody", "chatId": 7 });
    assert_accepted(signed_post(&host.webhook, event.to_string()).await).await;
    host.logged(&["the payload has an unknown shape", "evt_4"]).await;
    // The chosen module can't be read, so the host can't answer that no module wants the event.
    event["payload"] = json!(null);
    assert_retry_after(signed_post(&host.webhook, event.to_string()).await, "60").await;
    assert_eq!(chat(&host, "Test", "reply all is well").await.text(), "all is well");
}

#[tokio::test]
async fn every_path_has_a_response() {
    let host = Settings::new().start().await;
    let public = host.webhook.strip_suffix("/webhook").unwrap();
    for path in ["/", "/webhooks", "/webhook/", "/WEBHOOK", "/metrics"] {
        refused(signed_post(&format!("{public}{path}"), "{}").await, StatusCode::NOT_FOUND, "no source has this path")
            .await;
    }
    for method in [reqwest::Method::GET, reqwest::Method::PUT, reqwest::Method::DELETE] {
        let answer = http().request(method, &host.webhook).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], "POST");
        refused(answer, StatusCode::METHOD_NOT_ALLOWED, "POST").await;
    }
    for listener in [public, &host.admin] {
        let answer = http().get(format!("{listener}/health")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.json::<Value>().await.unwrap()["status"], "ok");
    }
    // The public listener reveals no operator details.
    let public_health: Value = http().get(format!("{public}/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!(public_health, json!({ "status": "ok" }));
    assert_eq!(signed_post(&format!("{}/webhook", host.admin), "{}").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn maps_each_company_to_its_tenant() {
    let wants = |tenant: &str| format!("events = [{UPLOADED:?}]\ntenants = [{tenant:?}]");
    let host = Settings::new()
        .tenants(&[("ours", local::COMPANY_ID), ("theirs", "company_2")])
        .module("Ours", "test_guest", &wants("ours"))
        .module("Theirs", "test_guest", &wants("theirs"))
        .start()
        .await;
    assert_accepted(signed_post(&host.webhook, uploaded("evt_ours", Some(local::COMPANY_ID))).await).await;
    assert_accepted(signed_post(&host.webhook, uploaded("evt_theirs", Some("company_2"))).await).await;
    for company in [None, Some(""), Some("company_3")] {
        assert_retry_after(signed_post(&host.webhook, uploaded("evt_foreign", company)).await, "60").await;
    }
    for (module, own) in [("module=Ours", "evt_ours"), ("module=Theirs", "evt_theirs")] {
        let line = host.logged(&[UPLOADED, "contentId", module]).await;
        assert!(line.contains(own), "{line}");
        host.logged(&["completed", module]).await;
        assert_eq!(lines(&host, &["attempt started", module]), 1);
    }
}

#[tokio::test]
async fn source_of_one_tenant_refuses_other_companies() {
    let host = Settings::new().tenants(&[("ours", local::COMPANY_ID)]).start().await;
    assert_accepted(signed_post(&host.webhook, uploaded("evt_1", Some(local::COMPANY_ID))).await).await;
    assert_retry_after(signed_post(&host.webhook, uploaded("evt_2", Some("company_2"))).await, "60").await;
    host.logged(&["event belongs to no tenant", "company `company_2`"]).await;
    // The company of another tenant is always refused.
    let host = Settings::new()
        .tenants(&[("ours", local::COMPANY_ID), ("theirs", "company_2")])
        .source("tenant = \"ours\"")
        .start()
        .await;
    let answer = signed_post(&host.webhook, uploaded("evt_2", Some("company_2"))).await;
    refused(answer, StatusCode::FORBIDDEN, "may not send events of company `company_2`").await;
}

#[tokio::test]
async fn acknowledges_before_the_delivery_runs_and_refuses_on_overload() {
    let gate = Gate::start().await;
    let host =
        Settings::test_guest(r#"events = ["unique.chat.external-module.chosen", "unique.chat.user-message.created"]"#)
            .server("max_deliveries = 1")
            .args(&["--completion-url", &gate.url()])
            .start()
            .await;
    // The platform sends the user message first and then the module choice. Only the second may block the host here.
    let chat_id = say(&host.platform, "Test", "complete what is it?").await;
    gate.reached_by(1).await;
    until("the delivery to be answered", async || {
        let deliveries: Value =
            http().get(format!("{}/local/deliveries", host.platform)).send().await.unwrap().json().await.unwrap();
        let is_chosen = |it: &&Value| it["event"] == "unique.chat.external-module.chosen";
        let chosen = deliveries.as_array()?.iter().find(is_chosen)?.clone();
        (chosen["status"] == "delivered").then_some(())
    })
    .await;
    let reply = read_chat(&host.platform, &chat_id).await["messages"][1].clone();
    assert!(reply["completedAt"].is_null(), "the delivery completed too early: {reply}");

    let late = user_message("evt_late", "later").to_string();
    assert_retry_after(signed_post(&host.webhook, late.clone()).await, "5").await;
    host.logged(&["WARN", "refused for now", "max_deliveries"]).await;
    gate.open();
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), Gate::ANSWER);
    until("capacity for another event", async || {
        let answer = signed_post(&host.webhook, late.clone()).await;
        answer.status().is_success().then_some(())
    })
    .await;
    host.logged(&["user-message-created later"]).await;
    assert_eq!(lines(&host, &["user-message-created later"]), 1);
}

#[tokio::test]
async fn deduplicates_events() {
    let host = Settings::test_guest(r#"events = ["unique.chat.user-message.created"]"#).start().await;
    let event = user_message("evt_1", "just once").to_string();
    assert_accepted(signed_post(&host.webhook, event.clone()).await).await;
    host.logged(&["completed", "module=Test"]).await;
    assert_accepted(signed_post(&host.webhook, event.clone()).await).await;
    // The event id identifies a duplicate, not the bytes: a redelivery may be formatted differently.
    assert_accepted(signed_post(&host.webhook, user_message("evt_1", "twice").to_string()).await).await;
    until("both duplicates to be logged", async || (lines(&host, &["duplicate event", "evt_1"]) == 2).then_some(()))
        .await;
    assert_accepted(signed_post(&host.webhook, user_message("evt_2", "another").to_string()).await).await;
    host.logged(&["user-message-created another"]).await;
    assert_eq!(lines(&host, &["user-message-created"]), 2, "{}", host.log());
}

#[tokio::test]
async fn deduplicates_concurrent_events() {
    let host = Settings::test_guest(r#"events = ["unique.chat.user-message.created"]"#).start().await;
    let event = user_message("evt_1", "just once").to_string();
    let answers = (0..20).map(|_| signed_post(&host.webhook, event.clone()));
    for answer in futures::future::join_all(answers).await {
        assert_accepted(answer).await;
    }
    until("all other events to be logged as duplicates", async || {
        (lines(&host, &["duplicate event"]) == 19).then_some(())
    })
    .await;
    host.logged(&["completed", "module=Test"]).await;
    assert_eq!(lines(&host, &["user-message-created"]), 1);
}

#[tokio::test]
async fn tolerates_aborted_requests() {
    let host = Settings::new().start().await;
    let body = user_message("evt_1", "hello").to_string();
    let head = head(&host, &format!("x-unique-signature: {}", sign(body.as_bytes())), body.len());
    for sent in ["POST", &head[..40], &head, &format!("{head}{}", &body[..body.len() / 2])] {
        let mut stream = connect(&host).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        drop(stream);
    }
    // A client that closes its write side before the announced length.
    let mut stream = connect(&host).await;
    stream.write_all(format!("{head}{{").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert_accepted(signed_post(&host.webhook, body).await).await;
    assert!(!host.log().contains("panic"), "{}", host.log());
}

/// Posts with chunked encoding, without a Content-Length.
async fn post_in_chunks(host: &Host, body: Vec<u8>) -> Response {
    let (signature, now) = (sign(&body), now().to_string());
    let chunks: Vec<_> = body.chunks(64 << 10).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    let headers = [("x-unique-signature", signature.as_str()), ("x-unique-created-at", now.as_str())];
    post(&host.webhook, &headers, Body::wrap_stream(stream::iter(chunks))).await
}

/// The head of a raw request.
fn head(host: &Host, header: &str, length: usize) -> String {
    let address = address(host);
    let now = now();
    format!(
        "POST /webhook HTTP/1.1\r\nhost: {address}\r\nx-unique-created-at: {now}\r\n{header}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Posts with a raw header; returns the response.
async fn raw(host: &Host, header: &str, body: &str) -> String {
    let mut stream = connect(host).await;
    stream.write_all(format!("{}{body}", head(host, header, body.len())).as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

async fn connect(host: &Host) -> TcpStream {
    TcpStream::connect(address(host)).await.unwrap()
}

fn address(host: &Host) -> &str {
    host.webhook.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/webhook")).unwrap()
}

/// The number of log lines that contain all of these words.
fn lines(host: &Host, words: &[&str]) -> usize {
    host.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}
