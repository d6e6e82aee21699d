//! Kills the host, or ends the answer early, while a module reads a stream: a completion is paid once, and the chunks
//! already read are replayed.

use http::Method;

use super::faulty_platform::{Fault, FaultyPlatform, Question};
use super::harness::{Stream, StreamConnection};
use super::host::{Config, Host};

/// Starts a faulty platform, a model, and a host whose tenant uses the model. The test answers the model's requests: if a
/// delivery ends after the test answered once, there was one request.
async fn start(module: &str) -> (FaultyPlatform, Stream, Host) {
    let (faulty_platform, model) = (FaultyPlatform::start(&["Test"]).await, Stream::start().await);
    let completion = format!("completion = {{ api_base = {:?}, model = \"own-model\" }}", model.api_base());
    let host = Config::new().tenant(&completion).module("Test", "test_guest", module).start(&faulty_platform).await;
    (faulty_platform, model, host)
}

/// Sends a user's message; the model starts to answer.
async fn ask(
    faulty_platform: &FaultyPlatform,
    model: &Stream,
    host: &Host,
    text: &str,
) -> (Question, StreamConnection) {
    let question = faulty_platform.ask("Test", text, None).await;
    host.post_acknowledged(&question).await;
    (question, model.opened().await)
}

fn key(line: &StreamConnection) -> String {
    let head = line.request.to_lowercase();
    head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).expect("a key").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn partially_read_stream_is_requested_again_and_counted() {
    let (faulty_platform, model, host) = start("").await;
    let (question, mut line) = ask(&faulty_platform, &model, &host, "stream-shown Tell me.").await;
    let first_key = key(&line);
    line.send_chunk("Once").await;
    faulty_platform.asked_for(&Method::POST, &format!("/messages/{}/event", question.reply), 1).await;
    host.kill();
    line.closed().await;

    host.start().await;
    let mut line = model.opened().await;
    assert_eq!(key(&line), first_key);
    line.send_chunk("Twice").await;
    line.done().await;
    assert_eq!(host.in_state(&question, "completed").await["attempts"], 2);
    assert_eq!(faulty_platform.reply(&question).await.text(), "Twice");
    // The repeated completion, and possibly a text that was being shown when the host was killed.
    assert!(host.totals().await["calls_made_again"].as_u64().unwrap() >= 1);
}

/// Lets a delivery read a part of a stream, kills the host during the next call, and lets the delivery resume.
async fn killed_after(text: &str, read: &[&str], whole: bool, reply: &str) {
    let (faulty_platform, model, host) = start("").await;
    faulty_platform.plan(Method::PATCH, "/messages", "", 1, Fault::Hold);
    let (question, mut line) = ask(&faulty_platform, &model, &host, text).await;
    for piece in read {
        line.send_chunk(piece).await;
    }
    if whole {
        line.done().await;
    } else {
        line.closed().await;
    }
    faulty_platform.asked_for(&Method::PATCH, "/messages", 1).await;
    host.kill();

    host.start().await;
    assert_eq!(host.in_state(&question, "completed").await["attempts"], 2);
    assert_eq!(faulty_platform.reply(&question).await.text(), reply);
    assert_eq!(host.totals().await["calls_made_again"], 1, "only the reply was in flight");
    let id = host.delivery_id(&question).await;
    assert_eq!(host.get(&format!("/api/deliveries/{id}")).await["calls"][0]["import"], "completion.stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn completely_read_stream_is_paid_once() {
    killed_after("stream Tell me.", &["Once", " upon", " a time"], true, "Once| upon| a time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_stream_is_replayed_at_the_same_length() {
    killed_after("stream-some 2 Tell me.|reply", &["Once", " upon"], false, "Once| upon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_stream_is_replayed_as_interrupted() {
    let retry = r#"retry = { attempts = 5, first = "10ms", max = "20ms" }"#;
    let (faulty_platform, model, host) = start(retry).await;
    // The guest catches the error and replies with the text it read; that call is interrupted.
    faulty_platform.plan(Method::PATCH, "/messages", "", 1, Fault::Hold);
    let (question, mut line) = ask(&faulty_platform, &model, &host, "stream-caught Tell me.").await;
    line.send_chunk("Once").await;
    line.end().await;
    faulty_platform.asked_for(&Method::PATCH, "/messages", 1).await;
    host.kill();
    host.start().await;
    host.in_state(&question, "completed").await;
    let reply = faulty_platform.reply(&question).await;
    assert!(reply.text().starts_with("Once|completion.tokens.next: unavailable: "), "{reply:?}");

    // If the delivery fails because of the error, the retry requests the completion again.
    let (question, mut line) = ask(&faulty_platform, &model, &host, "stream Tell me.").await;
    line.send_chunk("Once").await;
    line.end().await;
    host.tried_again(&question).await;
    let mut line = model.opened().await;
    line.send_chunk("Twice").await;
    line.done().await;
    assert_eq!(host.in_state(&question, "completed").await["attempts"], 2);
    assert_eq!(faulty_platform.reply(&question).await.text(), "Twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_into_the_reply_is_paid_once() {
    let (faulty_platform, model, host) = start("").await;
    faulty_platform.plan(Method::PATCH, "/messages", "", 1, Fault::Hold);
    let (question, mut line) = ask(&faulty_platform, &model, &host, "complete-into-reply travel expenses").await;
    line.send_chunk("Book early [source0].").await;
    line.done().await;
    faulty_platform.asked_for(&Method::PATCH, "/messages", 1).await;
    host.kill();
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(faulty_platform.reply(&question).await.text(), "Book early <sup>1</sup>.");
}
