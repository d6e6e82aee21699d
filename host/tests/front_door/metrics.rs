//! Tests of `/metrics` on the admin listener.

use std::collections::HashMap;

use reqwest::StatusCode;

use super::harness::{ADMIN_TOKEN, Host, Settings, chat, http, post, signed_post, until, user_message};

/// The metrics of a host, by name with labels.
async fn metrics(host: &Host) -> HashMap<String, f64> {
    let answer = http().get(format!("{}/metrics", host.admin)).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn counts_events_deliveries_and_calls() {
    let host =
        Settings::test_guest(r#"events = ["unique.chat.external-module.chosen", "unique.chat.user-message.created"]"#)
            .module("Broken", "nothing_there", r#"events = ["nothing"]"#)
            .start()
            .await;
    assert_eq!(chat(&host, "Test", "step-and reply hello").await.text(), "hello");
    let event = user_message("evt_1", "once").to_string();
    signed_post(&host.webhook, event.clone()).await;
    signed_post(&host.webhook, event).await;
    signed_post(&host.webhook, r#"{"id":"evt_2","event":"nobody.wants","payload":{}}"#).await;
    post(&host.webhook, &[("x-unique-signature", "00"), ("x-unique-created-at", "0")], "{}").await;

    let ended = r#"modhost_deliveries{state="completed"}"#;
    let metrics = until("three deliveries to end", async || {
        let metrics = metrics(&host).await;
        (metrics.get(ended) == Some(&3.0)).then_some(metrics)
    })
    .await;
    for (name, wanted) in [
        // The platform sends two events per chat: the user message, and the module choice.
        (r#"modhost_events_total{source="unique",tenant="default",outcome="taken"}"#, 3.0),
        (r#"modhost_events_total{source="unique",tenant="default",outcome="again"}"#, 1.0),
        (r#"modhost_events_total{source="unique",tenant="default",outcome="unwanted"}"#, 1.0),
        (r#"modhost_requests_total{source="unique",status="200"}"#, 5.0),
        (r#"modhost_requests_total{source="unique",status="400"}"#, 1.0),
        (r#"modhost_attempts_total{module="Test",tenant="default",state="completed"}"#, 3.0),
        (r#"modhost_attempt_seconds_count{module="Test"}"#, 3.0),
        (r#"modhost_calls_total{import="messages.reply",outcome="ok"}"#, 1.0),
        (r#"modhost_call_seconds_count{import="message-log.entry.create"}"#, 1.0),
        (r#"modhost_calls_made_again_total"#, 0.0),
        (r#"modhost_module_serves{module="Test"}"#, 1.0),
        (r#"modhost_module_serves{module="Broken"}"#, 0.0),
        (r#"modhost_module_paused{module="Test"}"#, 0.0),
        (r#"modhost_module_versions_loaded{module="Test"}"#, 1.0),
        (r#"modhost_module_versions_loaded{module="Broken"}"#, 0.0),
        (r#"modhost_swaps_total{module="Test",origin="file"}"#, 1.0),
        (r#"modhost_swaps_refused_total{module="Broken",by="file"}"#, 1.0),
    ] {
        assert_eq!(metrics.get(name), Some(&wanted), "{name} among {metrics:#?}");
    }
    assert!(metrics["modhost_journal_bytes"] > 0.0);
}

#[tokio::test]
async fn metrics_are_only_on_the_admin_listener() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::new().server("admin_token = \"env:TOKEN\"");
    std::fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
    let variables = [
        ("TEST_API_BASE", "http://127.0.0.1:1"),
        ("TEST_APP_ID", "app"),
        ("TEST_API_KEY", "key"),
        ("TEST_ENDPOINT_SECRET", "usig"),
        ("TOKEN", ADMIN_TOKEN),
    ];
    let host = Host::serve(folder, &variables, None).await;
    let url = format!("{}/metrics", host.admin);
    assert_eq!(http().get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(http().get(&url).bearer_auth(ADMIN_TOKEN).send().await.unwrap().status(), StatusCode::OK);
}
