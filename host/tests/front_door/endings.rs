//! Tests of every way a delivery can end, and of what the user and the operators then read.

use std::num::NonZero;

use futures::future::join_all;
use serde_json::Value;

use super::harness::{Host, Settings, chat, read_chat, read_message, say, until, wait_for_answer};

/// The default apology, when neither the module nor the settings have another.
const APOLOGY: &str = "Sorry, something went wrong and this can't be answered right now. Please try again later.";

/// Prefix of every command of the table: leaves two steps running and closes two.
const STEPS: &str = "step-and step-and done-step-and failed-step-and";

/// The command for the module, the final reply, and, for a failure, the reason in the log.
struct Case {
    module: &'static str,
    command: &'static str,
    reply: &'static str,
    reason: Option<&'static [&'static str]>,
}

const fn ok(command: &'static str, reply: &'static str) -> Case {
    Case { module: "Test", command, reply, reason: None }
}

const fn failed(module: &'static str, command: &'static str, reason: &'static [&'static str]) -> Case {
    Case { module, command, reply: APOLOGY, reason: Some(reason) }
}

const CASES: &[Case] = &[
    ok("reply the answer", "the answer"),
    ok("draft half an answer", "half an answer"),
    ok("draft-and first words|draft last words", "last words"),
    ok("draft-and a draft|reply the end", "the end"),
    failed("Test", "nothing", &["returned ok but never wrote a reply", "messages.reply"]),
    failed("Test", "fail no seats left", &["no seats left"]),
    failed("Test", "draft-and half a thought|fail lost the thread", &["lost the thread"]),
    Case { reply: "We are full.", ..failed("Test", "fail-with-text no tables|We are full.", &["no tables"]) },
    Case {
        reply: "Come on Monday.",
        ..failed("Test", "retry-with-text no seats today|Come on Monday.", &["no seats today (attempt 1 of 1)"])
    },
    failed("Test", "retry 5", &["attempt 1 failed as told"]),
    failed("Test", "dance", &["there is no command `dance`"]),
    failed("Test", "panic boo hoo", &["trap: wasm `unreachable` instruction executed", "panicked at", "boo hoo"]),
    failed("Test", "exit 0", &["called exit(0) instead of returning from `handle`"]),
    failed("Test", "exit 7", &["called exit(1) instead of returning from `handle`"]),
    failed("Test", "recurse", &["a recursion without end?"]),
    failed("Test", "allocate 64", &["limit reached: memory: it asked for 16.", "`limits.memory` is 16.0 MiB"]),
    failed("Busy", "loop", &["limit reached: cpu: it computed for 100ms, `limits.cpu`"]),
    failed("Slow", "sleep 600000", &["limit reached: time: no answer after 2s, `limits.timeout`"]),
];

#[tokio::test]
async fn every_outcome_closes_the_steps_and_completes_the_reply() {
    // One attempt each; retries are tested elsewhere.
    let once = "retry = { attempts = 1 }\n";
    let host = Settings::test_guest(&format!("{once}limits = {{ memory = \"16MiB\" }}"))
        .module("Busy", "test_guest", &format!("{once}limits = {{ cpu = \"100ms\" }}"))
        .module("Slow", "test_guest", &format!("{once}limits = {{ timeout = \"2s\" }}"))
        .start()
        .await;
    join_all(CASES.iter().map(|case| case.check(&host))).await;
}

impl Case {
    async fn check(&self, host: &Host) {
        let Self { module, command, .. } = self;
        let answer = chat(host, module, &format!("{STEPS} {command}")).await;
        assert_eq!(answer.text(), self.reply, "{command}");
        let left = if self.reason.is_some() { "FAILED" } else { "COMPLETED" };
        let steps = [("Working…", left), ("Working…", left), ("Done", "COMPLETED"), ("Failed", "FAILED")];
        assert_eq!(answer.steps(), steps, "{command}");
        assert!(answer.reply["stoppedStreamingAt"].is_string(), "{command}");
        if let Some(reason) = self.reason {
            let line = reason_with(host, reason).await;
            assert!(line.contains(&format!("module={module}")), "{line}");
        }
    }
}

/// Waits for a failure whose reason contains all of these words.
async fn reason_with(host: &Host, words: &[&str]) -> String {
    until(&format!("a reason with {words:?} in:\n{}", host.log()), async || {
        reasons(&host.log()).into_iter().find(|reason| words.iter().all(|word| reason.contains(word)))
    })
    .await
}

/// The reasons of failures in a log, with their indented continuation lines.
fn reasons(log: &str) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in log.lines() {
        if line.contains("delivery failed") {
            reasons.push(line.to_owned());
            goes_on = true;
        } else if let (true, Some(reason)) = (goes_on && line.starts_with("    "), reasons.last_mut()) {
            reason.push('\n');
            reason.push_str(line);
        } else {
            goes_on = false;
        }
    }
    reasons
}

#[tokio::test]
async fn module_apology_overrides_the_server_apology() {
    let host = Settings::test_guest(r#"apology = "The test module is sorry.""#)
        .module("Plain", "test_guest", "")
        .server(r#"apology = "The server is sorry.""#)
        .start()
        .await;
    assert_eq!(chat(&host, "Test", "panic").await.text(), "The test module is sorry.");
    assert_eq!(chat(&host, "Plain", "panic").await.text(), "The server is sorry.");
    assert_eq!(chat(&host, "Test", "fail-with-text x|It is my fault.").await.text(), "It is my fault.");
}

#[tokio::test]
async fn completed_reply_is_not_overwritten() {
    let host = Settings::test_guest("").start().await;
    for (command, reason) in [("panic too late", "too late"), ("fail no more", "no more"), ("exit 0", "exit(0)")] {
        let answer = chat(&host, "Test", &format!("step-and reply-and The answer.|{command}")).await;
        reason_with(&host, &[reason]).await;
        assert_eq!(answer.steps(), [("Working…", "FAILED")]);
        // Once a second chat is answered, the host has finished all writes to the first.
        chat(&host, "Test", "step-and reply next").await;
        let reply = read_message(&host, &answer.chat_id, answer.reply["id"].as_str().unwrap()).await;
        assert_eq!(reply["text"], "The answer.", "{command}");
        assert_eq!(reply["completedAt"], answer.reply["completedAt"], "{command}");
    }
}

#[tokio::test]
async fn failure_without_a_reply_is_only_logged() {
    let host =
        Settings::new().module("Listens", "demo_app", r#"events = ["unique.chat.user-message.created"]"#).start().await;
    let chat_id = say(&host.platform, "Listens", "Hello").await;
    let reason = reason_with(&host, &["unique.chat.user-message.created", "modules.toml"]).await;
    assert!(reason.contains("module=Listens"), "{reason}");
    let chat = read_chat(&host.platform, &chat_id).await;
    assert_eq!(chat["messages"].as_array().unwrap().len(), 1, "{chat}");
}

#[tokio::test]
async fn answers_while_other_deliveries_loop() {
    let patient = r#"limits = { cpu = "1h", timeout = "1h" }"#;
    let host = Settings::test_guest("").module("Loops", "test_guest", patient).start().await;
    // More loops than threads.
    let loops = std::thread::available_parallelism().map_or(2, NonZero::get) + 1;
    let looping: Vec<String> = join_all((0..loops).map(|_| say(&host.platform, "Loops", "step-and loop"))).await;
    until("all loops to run", async || {
        let steps = join_all(looping.iter().map(|chat_id| steps(&host, chat_id))).await;
        steps.iter().all(|steps| steps.len() == 1).then_some(())
    })
    .await;

    let answer = chat(&host, "Test", "step-and reply here I am").await;
    assert_eq!((answer.text(), answer.steps()), ("here I am", vec![("Working…", "COMPLETED")]));
    for chat_id in &looping {
        let steps = steps(&host, chat_id).await;
        assert_eq!(steps[0]["status"], "RUNNING", "the guest stopped looping: {steps:?}");
    }
}

/// The current steps of a chat's reply.
async fn steps(host: &Host, chat_id: &str) -> Vec<Value> {
    let chat = read_chat(&host.platform, chat_id).await;
    chat["messages"][1]["steps"].as_array().unwrap().clone()
}

#[tokio::test]
async fn closes_many_steps_at_the_end() {
    let host = Settings::test_guest("").start().await;
    let chat_id = say(&host.platform, "Test", "steps-left 40").await;
    let answer = wait_for_answer(&host, &chat_id).await;
    assert_eq!(answer.text(), "left 40 steps running");
    let expected: Vec<String> = (1..=40).map(|n| format!("Step {n}…")).collect();
    assert_eq!(answer.steps(), expected.iter().map(|text| (&**text, "COMPLETED")).collect::<Vec<_>>());
}
