//! Kills the host while a module waits for an answer; the delivery resumes after the restart.

use http::Method;

use super::faulty_platform::{Fault, FaultyPlatform, Question};
use super::harness::{component, variant};
use super::host::{Config, Host};

const COMPLETIONS: &str = "/openai/chat/completions";

/// Starts a host with the assistant, and kills it when the completion was executed but not yet answered.
async fn kill_during_completion(module: &str, text: &str) -> (FaultyPlatform, Host, Question) {
    let faulty_platform = FaultyPlatform::start(&["Module"]).await;
    let host = Config::new().module("Module", "assistant", module).start(&faulty_platform).await;
    faulty_platform.plan(Method::POST, COMPLETIONS, "", 1, Fault::Hold);
    let question = faulty_platform.ask("Module", text, None).await;
    host.post_acknowledged(&question).await;
    faulty_platform.asked_for(&Method::POST, COMPLETIONS, 1).await;
    host.kill();
    (faulty_platform, host, question)
}

/// Checks that an interrupted delivery was resumed.
async fn assert_resumed(faulty_platform: &FaultyPlatform, host: &Host, question: &Question) {
    let id = host.delivery_id(question).await;
    let calls = |method, path| faulty_platform.seen_of(&id, &method, path);
    let completions = calls(Method::POST, COMPLETIONS);
    assert_eq!(completions.len(), 2);
    assert_eq!(completions[0].key, completions[1].key);
    assert_eq!(calls(Method::POST, "/search").len(), 1);
    assert_eq!(calls(Method::POST, "/message-log").len(), 2);
    let reply = faulty_platform.reply(question).await;
    assert!(reply.is_complete(), "{reply:?}");
    assert_eq!(reply.statuses(), ["COMPLETED", "COMPLETED"]);
    assert_eq!(host.totals().await["calls_made_again"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_call_in_flight_is_repeated() {
    let (faulty_platform, host, question) = kill_during_completion("", "What about expenses?").await;
    host.start().await;
    assert_eq!(host.in_state(&question, "completed").await["attempts"], 2);
    assert_resumed(&faulty_platform, &host, &question).await;
    host.logged(&["the host did not shut down cleanly", "deliveries=1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resumes_with_another_version_that_makes_the_same_calls() {
    let (faulty_platform, host, question) = kill_during_completion("", "What about expenses?").await;
    host.swap("Module", &variant("assistant", 1));
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_resumed(&faulty_platform, &host, &question).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn diverging_version_leaves_no_step_open() {
    let (faulty_platform, host, question) = kill_during_completion("", "step-and reply Here you are.").await;
    host.swap("Module", &std::fs::read(component("test_guest")).unwrap());
    host.start().await;
    host.in_state(&question, "completed").await;
    let reply = faulty_platform.reply(&question).await;
    assert_eq!(reply.text(), "Here you are.");
    let texts: Vec<&str> = reply.steps().into_iter().map(|(_, text, _)| text).collect();
    assert_eq!(texts.len(), 3, "{reply:?}");
    assert_eq!(texts[1..], ["Generating response…", "Working…"]);
    assert_eq!(reply.statuses(), ["COMPLETED"; 3]);
    // Different calls at the same position have different keys.
    let seen = faulty_platform.seen();
    for call in seen.iter().filter(|call| call.key.is_some()) {
        let same = seen.iter().filter(|other| other.key == call.key);
        assert!(same.clone().all(|other| (&other.method, &other.path) == (&call.method, &call.path)), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_resume_all_calls_repeat_and_steps_are_reused() {
    let (faulty_platform, host, question) = kill_during_completion("resume = false", "What about expenses?").await;
    host.start().await;
    host.in_state(&question, "completed").await;
    let id = host.delivery_id(&question).await;
    assert_eq!(faulty_platform.seen_of(&id, &Method::POST, "/search").len(), 2);
    assert_eq!(faulty_platform.seen_of(&id, &Method::POST, COMPLETIONS).len(), 2);
    assert_eq!(faulty_platform.seen_of(&id, &Method::POST, "/message-log").len(), 2);
    assert_eq!(faulty_platform.reply(&question).await.statuses(), ["COMPLETED", "COMPLETED"]);
}

/// Without `resume`, existing steps are reused after every interruption, each of them once.
#[tokio::test(flavor = "multi_thread")]
async fn without_resume_each_step_is_reused_once() {
    let (faulty_platform, host, question) = kill_during_completion("resume = false", "What about expenses?").await;
    faulty_platform.plan(Method::POST, COMPLETIONS, "", 1, Fault::Hold);
    host.start().await;
    faulty_platform.asked_for(&Method::POST, COMPLETIONS, 2).await;
    host.kill();
    host.start().await;
    host.in_state(&question, "completed").await;
    let id = host.delivery_id(&question).await;
    assert_eq!(faulty_platform.seen_of(&id, &Method::POST, "/message-log").len(), 2);
    let reply = faulty_platform.reply(&question).await;
    assert_eq!(reply.steps().len(), 2, "{reply:?}");
    assert_eq!(reply.statuses(), ["COMPLETED", "COMPLETED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_readings_are_replayed() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", "").start(&faulty_platform).await;
    faulty_platform.plan(Method::PATCH, "/messages", "", 1, Fault::Hold);
    let question = faulty_platform.ask("Test", "now", None).await;
    host.post_acknowledged(&question).await;
    faulty_platform.asked_for(&Method::PATCH, "/messages", 1).await;
    host.kill();
    let first_reading = faulty_platform.reply(&question).await.text().to_owned();
    assert!(first_reading.parse::<u64>().is_ok(), "{first_reading}");
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(faulty_platform.reply(&question).await.text(), first_reading);
}
