//! The host is killed, or the answer breaks off, while a module reads it piece by piece: what was paid is paid once, and
//! what was read is read again as it was.

use http::Method;

use super::far_side::{FarSide, Fault, Question};
use super::harness::{Line, Stream};
use super::host::{Config, Host};

/// A far side, a model, and a host whose tenant asks that. The model answers when the test does: where a delivery ends and
/// the test answered once, it was asked once.
async fn start(module: &str) -> (FarSide, Stream, Host) {
    let (far_side, model) = (FarSide::start(&["Test"]).await, Stream::start().await);
    let completion = format!("completion = {{ api_base = {:?}, model = \"own-model\" }}", model.api_base());
    let host = Config::new().tenant(&completion).module("Test", "test_guest", module).start(&far_side).await;
    (far_side, model, host)
}

/// A user asks for something, and the model begins to answer.
async fn ask(far_side: &FarSide, model: &Stream, host: &Host, text: &str) -> (Question, Line) {
    let question = far_side.ask("Test", text, None).await;
    host.take(&question).await;
    (question, model.opened().await)
}

fn key(line: &Line) -> String {
    let head = line.request.to_lowercase();
    head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).expect("a key").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_half_read_is_asked_for_again_and_counted() {
    let (far_side, model, host) = start("").await;
    let (question, mut line) = ask(&far_side, &model, &host, "stream-shown Tell me.").await;
    let first_key = key(&line);
    line.says("Once").await;
    far_side.asked_for(&Method::POST, &format!("/messages/{}/event", question.reply), 1).await;
    host.kill();
    line.closed().await;

    host.start().await;
    let mut line = model.opened().await;
    assert_eq!(key(&line), first_key);
    line.says("Twice").await;
    line.done().await;
    assert_eq!(host.in_state(&question, "completed").await["attempts"], 2);
    assert_eq!(far_side.reply(&question).await.text(), "Twice");
    // That it was asked for, and whatever was shown when the host was killed.
    assert!(host.totals().await["calls_made_again"].as_u64().unwrap() >= 1);
}

/// Lets a delivery read what it wants of an answer, kills the host at the call after it, and lets it go on.
async fn killed_after(text: &str, read: &[&str], whole: bool, reply: &str) {
    let (far_side, model, host) = start("").await;
    far_side.plan(Method::PATCH, "/messages", "", 1, Fault::Hold);
    let (question, mut line) = ask(&far_side, &model, &host, text).await;
    for piece in read {
        line.says(piece).await;
    }
    if whole {
        line.done().await;
    } else {
        line.closed().await;
    }
    far_side.asked_for(&Method::PATCH, "/messages", 1).await;
    host.kill();

    host.start().await;
    assert_eq!(host.in_state(&question, "completed").await["attempts"], 2);
    assert_eq!(far_side.reply(&question).await.text(), reply);
    assert_eq!(host.totals().await["calls_made_again"], 1, "the reply alone was in flight");
    let id = host.delivery_id(&question).await;
    assert_eq!(host.get(&format!("/api/deliveries/{id}")).await["calls"][0]["import"], "completion.stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_read_to_its_end_is_paid_once() {
    killed_after("stream Tell me.", &["Once", " upon", " a time"], true, "Once| upon| a time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_given_up_is_as_long_as_it_was() {
    killed_after("stream-some 2 Tell me.|reply", &["Once", " upon"], false, "Once| upon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_broke_off_does_so_again_until_it_is_made_again() {
    let retry = r#"retry = { attempts = 5, first = "10ms", max = "20ms" }"#;
    let (far_side, model, host) = start(retry).await;
    // The guest catches the error, and replies with what it read: that call is cut off.
    far_side.plan(Method::PATCH, "/messages", "", 1, Fault::Hold);
    let (question, mut line) = ask(&far_side, &model, &host, "stream-caught Tell me.").await;
    line.says("Once").await;
    line.end().await;
    far_side.asked_for(&Method::PATCH, "/messages", 1).await;
    host.kill();
    host.start().await;
    host.in_state(&question, "completed").await;
    let reply = far_side.reply(&question).await;
    assert!(reply.text().starts_with("Once|completion.tokens.next: unavailable: "), "{reply:?}");

    // Where it fails by that, the next attempt has it answered anew.
    let (question, mut line) = ask(&far_side, &model, &host, "stream Tell me.").await;
    line.says("Once").await;
    line.end().await;
    host.tried_again(&question).await;
    let mut line = model.opened().await;
    line.says("Twice").await;
    line.done().await;
    assert_eq!(host.in_state(&question, "completed").await["attempts"], 2);
    assert_eq!(far_side.reply(&question).await.text(), "Twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_streamed_into_the_reply_is_paid_once() {
    let (far_side, model, host) = start("").await;
    far_side.plan(Method::PATCH, "/messages", "", 1, Fault::Hold);
    let (question, mut line) = ask(&far_side, &model, &host, "complete-into-reply travel expenses").await;
    line.says("Book early [source0].").await;
    line.done().await;
    far_side.asked_for(&Method::PATCH, "/messages", 1).await;
    host.kill();
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(far_side.reply(&question).await.text(), "Book early <sup>1</sup>.");
}
