//! Tests of a platform that is unreachable, refuses, fails, sends garbage, or is slow.

use futures::future::join_all;
use http::Method;
use serde_json::Value;

use super::faulty_platform::{Fault, FaultyPlatform};
use super::harness::until;
use super::host::{Config, Host};

const COMPLETIONS: &str = "/openai/chat/completions";
const NOTICE: &str = "Still at it.";
const APOLOGY: &str = "No answer, sorry.";

fn config() -> Config {
    Config::new().server(&format!("apology = {APOLOGY:?}\nretry_notice = {NOTICE:?}")).module(
        "Assistant",
        "assistant",
        r#"retry = { attempts = 50, first = "100ms", max = "200ms" }"#,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_wait_while_the_platform_is_unreachable() {
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let host = config().start(&faulty_platform).await;
    let question = faulty_platform.ask("Assistant", "How do I report sick?", None).await;
    faulty_platform.go_down().await;
    host.post_acknowledged(&question).await;
    let reason = host.tried_again(&question).await;
    assert!(reason.contains("can't connect"), "{reason}");
    faulty_platform.come_back().await;

    let done = host.in_state(&question, "completed").await;
    assert_eq!(done["reason"], Value::Null);
    let reply = faulty_platform.reply(&question).await;
    assert!(reply.is_complete() && reply.text() != NOTICE, "{reply:?}");
    assert_eq!(reply.statuses(), ["COMPLETED", "COMPLETED"]);
}

/// Temporary faults of a completion, and the number of attempts of the delivery.
const TEMPORARY: [(&str, Fault, u64); 4] = [
    ("limited", Fault::Answer(429, Some(1), r#"{"error":"slow down"}"#), 1),
    ("broken", Fault::Answer(500, None, r#"{"error":"out of order"}"#), 2),
    ("garbled", Fault::Answer(200, None, "<html>Welcome!</html>"), 2),
    ("slow", Fault::Hold, 2),
];

#[tokio::test(flavor = "multi_thread")]
async fn retries_temporary_failures() {
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    // Long enough for the client's own wait after a 429.
    let host = config().platform(r#"timeout = "4s""#).start(&faulty_platform).await;
    let mut questions = Vec::new();
    for (marker, fault, attempts) in TEMPORARY {
        faulty_platform.plan(Method::POST, COMPLETIONS, marker, 1, fault);
        let question =
            faulty_platform.ask("Assistant", &format!("What to do when the printer is {marker}?"), None).await;
        host.post_acknowledged(&question).await;
        questions.push((marker, question, attempts));
    }
    let checks = questions.into_iter().map(async |(marker, question, attempts)| {
        let done = host.in_state(&question, "completed").await;
        assert_eq!(done["attempts"], attempts, "{marker}");
        let reply = faulty_platform.reply(&question).await;
        assert!(reply.is_complete() && reply.text() != NOTICE, "{marker}: {reply:?}");
        assert_eq!(reply.statuses(), ["COMPLETED", "COMPLETED"], "{marker}");

        let id = done["id"].as_str().unwrap();
        let seen = faulty_platform.seen();
        let writes = seen.iter().filter(|call| call.is(&Method::PATCH, &format!("/messages/{}", question.reply)));
        let notices = writes.filter(|call| call.text.as_deref() == Some(NOTICE)).count();
        assert_eq!(notices as u64, attempts - 1, "{marker}: the notice of a retry");
        let completions = faulty_platform.seen_of(id, &Method::POST, COMPLETIONS);
        assert_eq!(completions.len(), 2, "{marker}");
        assert_eq!(completions[0].key, completions[1].key, "{marker}: the repeated call must have the same key");
        // Answered calls aren't repeated.
        assert_eq!(faulty_platform.seen_of(id, &Method::POST, "/message-log").len(), 2, "{marker}");
    });
    join_all(checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn module_can_request_a_retry_with_a_delay() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let retry = r#"retry = { attempts = 3, first = "100ms", max = "2h" }"#;
    let host = Config::new().module("Test", "test_guest", retry).start(&faulty_platform).await;
    let scheduled = faulty_platform.ask("Test", "retry", None).await;
    let later = faulty_platform.ask("Test", "retry 3600", None).await;
    let too_late = faulty_platform.ask("Test", "retry 90000000", None).await;
    for question in [&scheduled, &later, &too_late] {
        host.post_acknowledged(question).await;
    }
    let dead = host.in_state(&scheduled, "dead").await;
    assert_eq!(dead["attempts"], 3, "{dead}");
    assert_eq!(dead["reason"], "attempt 3 failed as told (attempt 3 of 3)");
    for (question, hours) in [(&later, 1), (&too_late, 2)] {
        let waits = host.in_state_after(question, "waiting", 1).await;
        let time = |field: &str| waits[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let seconds = time("due_at").duration_since(time("created_at")).as_secs();
        assert!((3600 * hours..3600 * (hours + 1)).contains(&seconds), "{waits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answer_does_not_block_other_deliveries() {
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let host = config().start(&faulty_platform).await;
    faulty_platform.plan(Method::POST, COMPLETIONS, "slowly", 1, Fault::Hold);
    let slow = faulty_platform.ask("Assistant", "Tell me slowly about travel", None).await;
    let quick = faulty_platform.ask("Assistant", "Tell me about travel", None).await;
    host.post_acknowledged(&slow).await;
    faulty_platform.asked_for(&Method::POST, COMPLETIONS, 1).await;
    host.post_acknowledged(&quick).await;
    host.in_state(&quick, "completed").await;
    assert_eq!(host.delivery(&slow).await["state"], "running");
    faulty_platform.release();
    assert_eq!(host.in_state(&slow, "completed").await["attempts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_failure_is_dead_and_can_be_retried() {
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let host = config().start(&faulty_platform).await;
    faulty_platform.plan(
        Method::POST,
        COMPLETIONS,
        "",
        1,
        Fault::Answer(403, None, r#"{"error":"the budget is spent"}"#),
    );
    let question = faulty_platform.ask("Assistant", "What do I get for a hotel?", None).await;
    host.post_acknowledged(&question).await;
    let dead = host.in_state(&question, "dead").await;
    assert!(dead["reason"].as_str().unwrap().contains("the budget is spent"), "{dead}");
    assert_eq!(dead["attempts"], 1, "{dead}");
    let reply = faulty_platform.reply(&question).await;
    assert!(reply.is_complete(), "{reply:?}");
    assert_eq!((reply.text(), reply.statuses()), (APOLOGY, vec!["COMPLETED", "FAILED"]));

    let id = dead["id"].as_str().unwrap();
    deliveries(&host, &["retry", id], &format!("{id}  waiting"));
    host.in_state(&question, "completed").await;
    let reply = faulty_platform.reply(&question).await;
    assert_ne!(reply.text(), APOLOGY);
    assert_eq!(reply.statuses(), ["COMPLETED", "COMPLETED"]);
    assert_eq!(faulty_platform.seen_of(id, &Method::POST, COMPLETIONS).len(), 2);
    assert_eq!(faulty_platform.seen_of(id, &Method::POST, "/search").len(), 1, "the search must be replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_is_paid_once_although_the_reply_fails() {
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let host = config().start(&faulty_platform).await;
    // The client itself makes four attempts.
    faulty_platform.plan(Method::PATCH, "/messages", "completedAt", 4, Fault::Answer(502, None, ""));
    let question = faulty_platform.ask("Assistant", "What do I get for a hotel?", None).await;
    host.post_acknowledged(&question).await;
    let done = host.in_state_after(&question, "completed", 2).await;
    assert!(faulty_platform.reply(&question).await.is_complete());
    let id = done["id"].as_str().unwrap();
    assert_eq!(faulty_platform.seen_of(id, &Method::POST, COMPLETIONS).len(), 1);
    assert_eq!(faulty_platform.seen_of(id, &Method::PATCH, "/messages").len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_delivery_can_be_dropped() {
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let host = config().start(&faulty_platform).await;
    faulty_platform.plan(Method::POST, COMPLETIONS, "", 1, Fault::Answer(429, Some(3600), ""));
    let question = faulty_platform.ask("Assistant", "What do I get for a hotel?", None).await;
    host.post_acknowledged(&question).await;
    host.in_state_after(&question, "waiting", 1).await;
    let id = host.delivery_id(&question).await;
    deliveries(&host, &["drop", &id, "--reason", "nobody needs it"], &format!("{id}  dropped"));
    let dropped = host.in_state(&question, "dropped").await;
    assert_eq!(dropped["reason"], "nobody needs it");
    let reply = faulty_platform.reply(&question).await;
    assert!(reply.is_complete(), "{reply:?}");
    assert_eq!((reply.text(), reply.statuses()), (APOLOGY, vec!["COMPLETED", "FAILED"]));
    let again = host.deliveries_command(&["drop", &id]);
    assert!(!again.status.success());
    let stderr = String::from_utf8(again.stderr).unwrap();
    assert!(stderr.contains("is dropped; only a waiting delivery can be dropped"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_the_apology_once_the_platform_recovers() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let retry = r#"retry = { attempts = 1, first = "100ms", max = "200ms" }"#;
    let config = Config::new().server(&format!("apology = {APOLOGY:?}")).module("Test", "test_guest", retry);
    let host = config.start(&faulty_platform).await;
    faulty_platform.plan(Method::PATCH, "/messages", "", 4, Fault::Answer(502, None, ""));
    let question = faulty_platform.ask("Test", "step-and fail because it has to", None).await;
    host.post_acknowledged(&question).await;
    let dead = host.in_state(&question, "dead").await;
    assert!(dead["reason"].as_str().unwrap().contains("because it has to"), "{dead}");
    until("the apology", async || faulty_platform.reply(&question).await.is_complete().then_some(())).await;
    let reply = faulty_platform.reply(&question).await;
    assert_eq!((reply.text(), reply.statuses()), (APOLOGY, vec!["FAILED"]));
}

/// Runs `modhost deliveries`, which must print this line.
fn deliveries(host: &Host, args: &[&str], line: &str) {
    let ran = host.deliveries_command(args);
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.lines().any(|known| known == line), "{out}{err}");
}
