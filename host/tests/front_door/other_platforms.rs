//! Tests of NexusGPT and Archivus: their events, the sample modules for them, and a NexusGPT that the test emulates.

use std::fs;

use http::{Method, StatusCode};
use reqwest::Response;
use serde_json::{Value, json};

use super::harness::{CommandOutput, Host, component, http, modhost, post, until};
use crate::server::{Recorded, Reply, Server, answer};

/// The signature header and its value, as the operator chose them at NexusGPT.
const HEADER: &str = "nexus-signature";
const SECRET: &str = "mysecret";
const KEY: &str = "nexus_key";

/// NexusGPT's response to a message.
const WRITTEN: &str = r#"{"success": true}"#;

/// Settings for two systems: NexusGPT with threads to answer in, at `platform`, and Archivus with documents and no
/// replies.
fn settings(platform: &str, relay: &str) -> String {
    let (nexus_relay, document_notes) = (component("nexus_relay"), component("document_notes"));
    format!(
        r#"
[[source]]
name = "nexus"
path = "/nexus"
scheme = "nexus"
header = "{HEADER}"
secrets = ["env:NEXUS_SECRET"]
tenant = "threads"

[[source]]
name = "archivus"
path = "/webhooks/archivus"
scheme = "archivus"
secrets = ["env:ARCHIVUS_SECRET"]
tenant = "documents"

[[tenant]]
name = "threads"
platform = {platform}

[[tenant]]
name = "documents"
platform = {{ kind = "none" }}

[[module]]
name = "NexusRelay"
component = {nexus_relay:?}
events = ["MESSAGE_FINALIZED"]
tenants = ["threads"]
retry = {{ attempts = 3, first = "100ms", max = "200ms" }}
{relay}

[[module]]
name = "DocumentNotes"
component = {document_notes:?}
events = ["document.*"]
tenants = ["documents"]
"#
    )
}

const NEXUS: &str = r#"{ kind = "nexus", api_base = "env:NEXUS_API_BASE", api_key = "env:NEXUS_API_KEY" }"#;

const ANSWERS: &str = r#"config = { answers = { "opening hours" = "Monday to Friday." } }"#;

/// Starts a host that serves both, with a NexusGPT that the test emulates.
async fn serve(far_side: &Server, relay: &str) -> Host {
    serve_on(far_side, NEXUS, relay).await
}

async fn serve_on(far_side: &Server, platform: &str, relay: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), settings(platform, relay)).unwrap();
    let base = format!("http://{}", far_side.address);
    let variables = [
        ("NEXUS_SECRET", SECRET),
        ("NEXUS_API_BASE", base.as_str()),
        ("NEXUS_API_KEY", KEY),
        ("ARCHIVUS_SECRET", "archivus_secret"),
    ];
    Host::serve(folder, &variables, None).await
}

/// Starts `modhost dev`, whose local platform emulates NexusGPT's threads.
async fn dev(platform: &str, relay: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let unique = "[[source]]\nname = \"unique\"\npath = \"/webhook\"\nscheme = \"unique\"\nsecrets = [\"env:S\"]\n\
                  tenant = \"threads\"\n";
    fs::write(folder.path().join("modules.toml"), format!("{unique}{}", settings(platform, relay))).unwrap();
    Host::dev(folder).await
}

/// An event for a message, identified by the message's id and the time of its update.
fn message(id: &str, updated: u32, text: &str) -> Value {
    json!({
        "event": "MESSAGE_FINALIZED",
        "payload": {
            "id": id,
            "chatId": "thread/1",
            "senderType": "USER",
            "userSenderId": "user_1",
            "content": text,
            "contentJson": { "content": text },
            "status": "PROCESSED",
            "createdAt": "2026-01-02T03:04:05.000Z",
            "updatedAt": format!("2026-01-02T03:04:{updated:02}.000Z"),
            "virtualSender": { "id": "employee_1" },
            "files": [],
        },
    })
}

fn url(host: &Host, path: &str) -> String {
    let mut url = reqwest::Url::parse(&host.webhook).unwrap();
    url.set_path(path);
    url.to_string()
}

async fn send_event(host: &Host, event: &Value) -> Response {
    post(&url(host, "/nexus"), &[(HEADER, SECRET)], event.to_string()).await
}

async fn post_accepted(host: &Host, event: &Value) {
    let answer = send_event(host, event).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
}

/// The deliveries of a host, newest first.
async fn deliveries(host: &Host) -> Vec<Value> {
    let listed: Value =
        http().get(format!("{}/api/deliveries", host.admin)).send().await.unwrap().json().await.unwrap();
    listed["deliveries"].as_array().unwrap().clone()
}

/// Waits until the delivery of an event is in a state, and returns it.
async fn in_state(host: &Host, event: &str, state: &str) -> Value {
    until(&format!("the delivery of {event} to be {state}"), async || {
        deliveries(host).await.into_iter().find(|it| it["event_id"] == event && it["state"] == state)
    })
    .await
}

/// The id that the host gives to the event of a message.
fn event_id(message: &Value) -> String {
    let payload = &message["payload"];
    format!("{}@{}", payload["id"].as_str().unwrap(), payload["updatedAt"].as_str().unwrap())
}

fn contents(requests: &[Recorded]) -> Vec<String> {
    requests.iter().map(|request| request.json()["content"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn answers_a_message_in_its_thread() {
    let far_side = Server::always(|| answer(200, WRITTEN)).await;
    let host = serve(&far_side, ANSWERS).await;
    let question = message("m_1", 1, "What are your opening hours?");
    for headers in [&[][..], &[(HEADER, "yoursecret")]] {
        let refused = post(&url(&host, "/nexus"), headers, question.to_string()).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    post_accepted(&host, &question).await;
    in_state(&host, &event_id(&question), "completed").await;
    let request = far_side.request();
    assert_eq!(request.method, Method::POST);
    assert_eq!((request.path.as_str(), request.query.as_deref()), ("/api/public/thread/thread%2F1/messages", None));
    assert_eq!(request.header("api-key"), Some(KEY));
    assert_eq!(contents(&far_side.requests()), ["Monday to Friday."]);
}

#[tokio::test]
async fn message_and_update_time_identify_an_event() {
    let far_side = Server::always(|| answer(200, WRITTEN)).await;
    let host = serve(&far_side, ANSWERS).await;
    let question = |id, updated| message(id, updated, "Opening hours?");
    // The third event repeats the first.
    for event in [question("m_1", 1), question("m_1", 2), question("m_1", 1), question("m_2", 1)] {
        post_accepted(&host, &event).await;
    }
    for event in [question("m_1", 1), question("m_1", 2), question("m_2", 1)] {
        in_state(&host, &event_id(&event), "completed").await;
    }
    assert_eq!(far_side.requests().len(), 3);
    assert_eq!(deliveries(&host).await.len(), 3);
    host.logged(&["duplicate event", &event_id(&question("m_1", 1))]).await;
}

#[tokio::test]
async fn relay_ignores_its_own_messages() {
    let far_side = Server::always(|| answer(200, WRITTEN)).await;
    let otherwise = r#"config = { otherwise = "Ask me something else." }"#;
    let host = serve(&far_side, otherwise).await;
    let mut by_employee = message("m_1", 1, "Hello");
    by_employee["payload"]["senderType"] = "VIRTUAL_EMPLOYEE".into();
    let mut half = message("m_2", 1, "Hello");
    half["payload"]["status"] = "IN_PROGRESS".into();
    let own = message("m_3", 1, "Ask me something else.");
    for event in [&by_employee, &half, &own] {
        post_accepted(&host, event).await;
        in_state(&host, &event_id(event), "completed").await;
    }
    assert_eq!(contents(&far_side.requests()), [""; 0]);
    let whole = message("m_2", 2, "Hello");
    post_accepted(&host, &whole).await;
    in_state(&host, &event_id(&whole), "completed").await;
    assert_eq!(contents(&far_side.requests()), ["Ask me something else."]);
}

#[tokio::test]
async fn splits_a_long_answer() {
    let far_side = Server::always(|| answer(200, WRITTEN)).await;
    let long = "We open at eight. ".repeat(500);
    let host = serve(&far_side, &format!("config = {{ answers = {{ hours = {long:?} }} }}")).await;
    let question = message("m_1", 1, "Hours?");
    post_accepted(&host, &question).await;
    in_state(&host, &event_id(&question), "completed").await;
    let parts = contents(&far_side.requests());
    assert_eq!(parts.len(), 3);
    assert!(parts.iter().all(|part| part.len() <= 4000 && part.ends_with("eight.")));
    assert_eq!(parts.join(" "), long.trim());
}

#[tokio::test]
async fn retries_temporary_failures_in_thread_order() {
    let down = || answer(500, r#"{"error": "out of order"}"#);
    let far_side = Server::scripted([down(), down(), answer(200, WRITTEN), answer(200, WRITTEN)]).await;
    let answers = r#"config = { answers = { first = "One", second = "Two" } }"#;
    let host = serve(&far_side, &format!("ordering = \"chat\"\n{answers}")).await;
    let (first, second) = (message("m_1", 1, "first"), message("m_2", 1, "second"));
    post_accepted(&host, &first).await;
    post_accepted(&host, &second).await;
    let done = in_state(&host, &event_id(&second), "completed").await;
    assert_eq!(done["attempts"], 1);
    assert_eq!(in_state(&host, &event_id(&first), "completed").await["attempts"], 3);
    assert_eq!(contents(&far_side.requests()), ["One", "One", "One", "Two"]);
}

#[tokio::test]
async fn retries_when_the_platform_does_not_answer() {
    let far_side = Server::scripted([Reply::Silence, answer(200, WRITTEN)]).await;
    let host = serve_on(&far_side, &NEXUS.replace(" }", ", timeout = \"500ms\" }"), ANSWERS).await;
    let question = message("m_1", 1, "Opening hours?");
    post_accepted(&host, &question).await;
    assert_eq!(in_state(&host, &event_id(&question), "completed").await["attempts"], 2);
    assert_eq!(contents(&far_side.requests()), ["Monday to Friday."; 2]);
}

#[tokio::test]
async fn permanent_failure_is_dead_and_reveals_no_key() {
    let far_side = Server::always(|| answer(401, format!(r#"{{"error": "unknown key {KEY}"}}"#))).await;
    let host = serve(&far_side, ANSWERS).await;
    let question = message("m_1", 1, "Opening hours?");
    post_accepted(&host, &question).await;
    let dead = in_state(&host, &event_id(&question), "dead").await;
    let reason = dead["reason"].as_str().unwrap();
    assert!(
        reason.contains("messages.create: not allowed: POST /api/public/thread/thread%2F1/messages: 401"),
        "{dead}"
    );
    assert!(!reason.contains(KEY) && !host.log().contains(KEY), "{dead}");
    assert_eq!(far_side.requests().len(), 1);
}

#[tokio::test]
async fn malformed_message_is_dead_with_a_reason() {
    let far_side = Server::always(|| answer(200, WRITTEN)).await;
    let host = serve(&far_side, ANSWERS).await;
    let mut malformed = message("m_1", 1, "Opening hours?");
    malformed["payload"]["content"] = json!({ "blocks": [] });
    post_accepted(&host, &malformed).await;
    let dead = in_state(&host, &event_id(&malformed), "dead").await;
    let reason = dead["reason"].as_str().unwrap();
    assert!(reason.starts_with("cannot parse the payload of event `MESSAGE_FINALIZED` (m_1@"), "{dead}");
    assert!(far_side.requests().is_empty());
}

/// Sends an event with `modhost send`, signed as its platform would.
async fn send(host: &Host, source: &str, event: &Value) -> CommandOutput {
    fs::write(host.file("event.json"), event.to_string()).unwrap();
    let to = host.webhook.replace("/webhook", "");
    modhost(host.folder(), "send", &["--source", source, "event.json", "--to", &to], &[]).await
}

#[tokio::test]
async fn dev_answers_in_local_threads() {
    let host = dev(NEXUS, ANSWERS).await;
    let ran = send(&host, "nexus", &message("m_1", 1, "Opening hours?")).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let thread = format!("{}/local/threads/thread%2F1", host.platform);
    let written = until("a message in the thread", async || {
        let written: Value = http().get(&thread).send().await.unwrap().json().await.unwrap();
        (written != json!([])).then_some(written)
    })
    .await;
    assert_eq!(written, json!(["Monday to Friday."]));
    host.logged(&["message written to a NexusGPT thread"]).await;
    host.logged(&["Monday to Friday."]).await;

    let url = format!("{}/api/public/thread/t/messages", host.platform);
    let send =
        async |key: &str, body: Value| http().post(&url).header("api-key", key).json(&body).send().await.unwrap();
    assert_eq!(send("another", json!({ "content": "x" })).await.status(), StatusCode::UNAUTHORIZED);
    for bad in [json!({}), json!({ "content": "" }), json!({ "content": "x".repeat(4001) })] {
        assert_eq!(send("ukey_local", bad).await.status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn unique_calls_need_a_company() {
    let unique = r#"{ kind = "unique", api_base = "env:B", app_id = "env:A", api_key = "env:K" }"#;
    let host = dev(unique, ANSWERS).await;
    let question = message("m_1", 1, "Opening hours?");
    assert_eq!(send(&host, "nexus", &question).await.code, 0);
    let dead = in_state(&host, &event_id(&question), "dead").await;
    let reason = dead["reason"].as_str().unwrap();
    assert!(reason.ends_with("an event `MESSAGE_FINALIZED` has no company to act on"), "{dead}");
}

fn document(id: &str, name: &str, data: Value) -> Value {
    json!({ "id": id, "type": name, "timestamp": "2026-01-02T03:04:05Z", "data": data })
}

/// The note that the module keeps about a document; null if it has none.
async fn note(host: &Host, document: &str) -> Value {
    let url = format!("{}/api/keyvalue/documents/DocumentNotes/notes/value?key={document}", host.admin);
    let found: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    found["value"].as_str().map_or(Value::Null, |note| serde_json::from_str(note).unwrap())
}

#[tokio::test]
async fn document_notes_sample_keeps_a_note_per_document() {
    let host = dev(NEXUS, ANSWERS).await;
    let processed = json!({
        "document_id": "doc_1",
        "document": {
            "id": "doc_1",
            "filename": "lease.pdf",
            "status": "processed",
            "ai_status": "completed",
            "ai_summary": "A lease of two years.",
            "ai_tags": ["lease", "2026"],
        },
    });
    let failed = json!({ "document_id": "doc_2", "error": "the file is encrypted" });
    let mut late = document("event_4", "document.failed", json!({ "document_id": "doc_1", "error": "try again" }));
    late["timestamp"] = "2026-01-02T03:00:00Z".into();
    for event in [
        document("event_1", "document.uploaded", json!({ "document_id": "doc_3" })),
        document("event_2", "document.processed", processed),
        document("event_3", "document.failed", failed),
        late,
    ] {
        let ran = send(&host, "archivus", &event).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        in_state(&host, event["id"].as_str().unwrap(), "completed").await;
    }
    let happened = "2026-01-02T03:04:05Z".parse::<jiff::Timestamp>().unwrap().as_second();
    let lease = "# lease.pdf\n\nTags: lease, 2026\n\nA lease of two years.\n";
    assert_eq!(
        note(&host, "doc_1").await,
        json!({ "at": happened, "text": lease }),
        "the outdated event changed the note"
    );
    let encrypted = "# Document doc_2\n\nIt could not be processed: the file is encrypted\n";
    assert_eq!(note(&host, "doc_2").await["text"], encrypted);
    assert_eq!(note(&host, "doc_3").await, Value::Null);

    let malformed = document("event_5", "document.processed", json!({ "document_id": "doc_4" }));
    assert_eq!(send(&host, "archivus", &malformed).await.code, 0);
    let dead = in_state(&host, "event_5", "dead").await;
    assert_eq!(
        dead["reason"].as_str().unwrap().split(" at line").next().unwrap(),
        "cannot parse the payload of event `document.processed` (event_5): missing field `document`"
    );
}

#[tokio::test]
async fn accepts_only_requests_signed_by_archivus() {
    let host = dev(NEXUS, ANSWERS).await;
    let body = document("event_1", "document.uploaded", json!({ "document_id": "doc_1" })).to_string();
    let forged = format!("sha256={}", "0".repeat(64));
    for headers in [&[][..], &[("x-archivus-signature", forged.as_str())]] {
        let refused = post(&url(&host, "/webhooks/archivus"), headers, body.clone()).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(deliveries(&host).await.len(), 0);
}
