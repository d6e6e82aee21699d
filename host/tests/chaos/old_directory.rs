//! Tests that every later version opens a data directory that modhost 7e3fbfe left when it was killed: known events
//! stay known, started deliveries resume, and their calls keep their keys.

use std::path::Path;

use http::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::faulty_platform::{Fault, FaultyPlatform};
use super::harness::until;
use super::host::{Config, Host};

/// The files as that version wrote them. Its modules had been paused, replaced, and had stored values.
const FILES: [(&str, &str); 3] = [
    ("journal.sqlite", include_str!("data_of_7e3fbfe/journal.sql")),
    ("keyvalue.sqlite", include_str!("data_of_7e3fbfe/keyvalue.sql")),
    ("versions.sqlite", include_str!("data_of_7e3fbfe/versions.sql")),
];

const IN_FLIGHT: &str = "dlv_6a4d50ea69991aecbcb58771";

/// The idempotency key of the call that was in flight when the host was killed.
const KEY_IN_FLIGHT: &str = "dlv_6a4d50ea69991aecbcb58771-1-da8cfff1b7550739";

/// A host on that directory, not started yet.
async fn old_host() -> (FaultyPlatform, Host) {
    let faulty_platform = FaultyPlatform::start(&[]).await;
    // The local platform doesn't have the old messages.
    let message = r#"{"object": "message", "id": "msg", "chatId": "chat", "role": "ASSISTANT", "text": "x"}"#;
    faulty_platform.plan(Method::PATCH, "/messages/", "", 1000, Fault::Answer(200, None, message));
    let step = r#"{"object": "message-log", "id": "step", "messageId": "msg", "status": "COMPLETED", "order": 1}"#;
    faulty_platform.plan(Method::PATCH, "/message-log/", "", 1000, Fault::Answer(200, None, step));
    faulty_platform.plan(Method::POST, "/message-log", "", 1000, Fault::Answer(200, None, step));
    let config = Config::new().module("Test", "test_guest", "").module("Slow", "test_guest", "");
    let host = config.lay_out(&faulty_platform);
    std::fs::write(host.file("modules.toml"), include_str!("data_of_7e3fbfe/modules.toml")).unwrap();
    let directory = host.file(".modhost");
    std::fs::create_dir(&directory).unwrap();
    for (name, sql) in FILES {
        write(&directory.join(name), sql);
    }
    (faulty_platform, host)
}

fn write(file: &Path, sql: &str) {
    let tables = Connection::open(file).unwrap();
    tables.pragma_update(None, "journal_mode", "WAL").unwrap();
    tables.execute_batch(sql).unwrap();
}

/// An event like those in the directory; `version` is a part of the id for source `orders`.
fn event(id: &str, version: &str, company: &str, module: &str, text: &str) -> Value {
    json!({
        "id": id,
        "version": version,
        "event": "unique.chat.external-module.chosen",
        "createdAt": "1700000000",
        "userId": "user_1",
        "companyId": company,
        "payload": {
            "name": module,
            "description": "",
            "configuration": {},
            "chatId": format!("chat_{id}"),
            "assistantId": "assistant_1",
            "userMessage": { "id": "msg_user", "text": text, "createdAt": "2026-01-01T00:00:00.000Z" },
            "assistantMessage": { "id": format!("msg_{id}"), "createdAt": "2026-01-01T00:00:00.000Z" },
        },
    })
}

/// The number of deliveries.
async fn count(host: &Host) -> usize {
    host.get("/api/deliveries").await["deliveries"].as_array().unwrap().len()
}

/// Posts an event, which must be acknowledged; returns the number of new deliveries.
async fn post(host: &Host, source: &str, event: &Value) -> usize {
    let before = count(host).await;
    let posted = host.post_to(source, event).await.unwrap();
    assert!(posted.is_acknowledged(), "{posted:?}");
    count(host).await - before
}

async fn state(host: &Host, delivery: &str) -> String {
    host.get(&format!("/api/deliveries/{delivery}")).await["state"].as_str().unwrap().to_owned()
}

async fn completed(host: &Host, delivery: &str) {
    until(&format!("{delivery} to complete"), async || (state(host, delivery).await == "completed").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resumes_deliveries_of_an_older_version_with_their_keys() {
    let (faulty_platform, host) = old_host().await;
    host.start().await;

    completed(&host, IN_FLIGHT).await;
    let seen = faulty_platform.seen_of(IN_FLIGHT, &Method::PATCH, "/messages/msg_flight");
    assert_eq!(seen[0].key.as_deref(), Some(KEY_IN_FLIGHT), "{seen:?}");
    assert_eq!(faulty_platform.seen_of(IN_FLIGHT, &Method::POST, "/message-log").len(), 0, "the step was shown twice");
    assert!(
        faulty_platform.seen().iter().any(|it| it.is(&Method::PATCH, "/message-log/step_flight")),
        "the step was never closed"
    );

    // The pause of the module is remembered, and its waiting delivery still waits.
    let waiting = "dlv_589c99df18998951e49d5839";
    let slow = host.get("/api/modules/Slow").await;
    assert_eq!((slow["paused"]["by"].as_str(), &*state(&host, waiting).await), (Some("kim"), "waiting"), "{slow}");
    let resumed = host.modules_command(&["resume", "Slow"]);
    assert!(resumed.status.success(), "{resumed:?}");
    completed(&host, waiting).await;

    let dead = "dlv_0358118b14d589e2e8cb2897";
    assert_eq!(state(&host, dead).await, "dead");
    assert!(host.deliveries_command(&["retry", dead]).status.success());
    until("the second attempt to end", async || {
        let details = host.get(&format!("/api/deliveries/{dead}")).await;
        (details["state"] == "dead" && details["attempts"] == 2).then_some(())
    })
    .await;

    let versions = host.get("/api/modules/Test/versions").await["versions"].as_array().unwrap().clone();
    assert!(versions.iter().any(|version| version["version"] == "bbdf6b77c535"), "{versions:?}");

    assert_eq!(post(&host, "unique", &event("evt_get", "1", "company_a", "Test", "kv-get color")).await, 1);
    faulty_platform.asked_for(&Method::PATCH, "/messages/msg_evt_get", 1).await;
    let seen = faulty_platform.seen();
    let reply = seen.iter().find(|it| it.is(&Method::PATCH, "/messages/msg_evt_get")).unwrap();
    assert_eq!(reply.text.as_deref(), Some("blue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn deduplicates_events_of_an_older_version_per_tenant() {
    let (_faulty_platform, host) = old_host().await;
    host.start().await;
    for life in 1..=2 {
        for id in ["evt_done", "evt_dead", "1001", "evt_wait", "evt_flight"] {
            let again = post(&host, "unique", &event(id, "1.0.0", "company_a", "Test", "reply Hello")).await;
            assert_eq!(again, 0, "{id} was processed again in life {life}");
        }
        // In the old id format, these two events have the same id.
        for (id, version) in [("7@8", "9"), ("7", "8@9")] {
            assert_eq!(post(&host, "orders", &event(id, version, "company_a", "Test", "reply Hello")).await, 0, "{id}");
        }
        let new = usize::from(life == 1);
        assert_eq!(post(&host, "unique", &event("1001", "1.0.0", "company_b", "Test", "reply Hello")).await, new);
        for (id, version) in [("7@8", "9"), ("7", "8@9"), ("7", "89"), ("78", "9")] {
            assert_eq!(
                post(&host, "orders", &event(id, version, "company_b", "Test", "reply Hello")).await,
                new,
                "{id}"
            );
        }
        host.kill();
        host.start().await;
    }
    until("all deliveries to complete", async || {
        let totals = host.totals().await;
        (totals["deliveries"]["completed"] == 3 + 1 + 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_an_offline_directory_of_an_older_version() {
    let (_faulty_platform, host) = old_host().await;
    let read = |args: &[&str]| {
        let ran = host.command(&[&["deliveries"], args, &["--data-dir", ".modhost"]].concat()).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    assert_eq!(read(&["--json"]).lines().count(), 6);
    assert_eq!(read(&["--json", "--event", "7@8@9"]).lines().count(), 1);
    assert!(read(&["show", IN_FLIGHT]).contains("messages.reply"));
}
