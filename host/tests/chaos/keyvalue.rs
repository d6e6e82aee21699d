//! The host is killed while modules write to the key-value store: each write happens once.

use std::time::Duration;

use http::Method;
use rusqlite::Connection;
use serde_json::Value;

use super::far_side::{FarSide, Fault, Question};
use super::harness::until;
use super::host::{Config, Host, TENANT};

const COMPLETIONS: &str = "/openai/chat/completions";

/// What the module keeps under a key.
async fn kept(host: &Host, key: &str) -> Value {
    host.get(&format!("/api/keyvalue/{TENANT}/Test/default/value?key={key}")).await["value"].clone()
}

/// Starts a host with a module that counts and then waits for a completion, and kills it there.
async fn cut_off(module: &str) -> (FarSide, Host, Question) {
    let far_side = FarSide::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", module).start(&far_side).await;
    far_side.plan(Method::POST, COMPLETIONS, "", 1, Fault::Hold);
    let question = far_side.ask("Test", "kv-count-and hits|complete hello", None).await;
    host.take(&question).await;
    far_side.asked_for(&Method::POST, COMPLETIONS, 1).await;
    host.kill();
    (far_side, host, question)
}

fn database(host: &Host, name: &str) -> Connection {
    Connection::open(host.file(".modhost").join(name)).unwrap()
}

/// Makes the journal say what it would if the host had been killed between doing the count and recording its answer.
fn lose_the_answer(host: &Host) {
    let lost = "UPDATE calls SET answer = NULL WHERE import = 'keyvalue.increment' AND answer IS NOT NULL";
    assert_eq!(database(host, "journal.sqlite").execute(lost, []).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_is_not_counted_again() {
    let (_far_side, host, question) = cut_off("").await;
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(kept(&host, "hits").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_when_nobody_had_the_answer_is_not_counted_again() {
    let (_far_side, host, question) = cut_off("").await;
    lose_the_answer(&host);
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(kept(&host, "hits").await, "1");
    // It was asked for again, and had the answer it had then.
    assert_eq!(host.totals().await["calls_made_again"], 2);
}

/// The store alone knows that it was done: with that taken away, too, it is done again.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_store_that_knows() {
    let (_far_side, host, question) = cut_off("").await;
    lose_the_answer(&host);
    assert_eq!(database(&host, "keyvalue.sqlite").execute("DELETE FROM done", []).unwrap(), 1);
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(kept(&host, "hits").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_resume_it_counts_anew() {
    let (_far_side, host, question) = cut_off("resume = false").await;
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(kept(&host, "hits").await, "2");
}

/// Killed at random moments under a load of counts, the sum is that of the events.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_counts_once_whenever_the_host_is_killed() {
    const KILLS: u32 = 5;
    const EVENTS: u32 = 30;
    let far_side = FarSide::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", "retry = { attempts = 1000 }").lay_out(&far_side);
    let mut events = 0;
    for _ in 0..KILLS {
        host.start().await;
        for _ in 0..EVENTS {
            let question = far_side.ask("Test", "kv-count-and hits|kv-append log .", None).await;
            host.take(&question).await;
            events += 1;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..30))).await;
        host.kill();
    }
    host.start().await;
    until("all of them to be done", async || (host.totals().await["deliveries"]["completed"] == events).then_some(()))
        .await;
    assert_eq!(kept(&host, "hits").await, events.to_string());
    assert_eq!(kept(&host, "log").await, ".".repeat(events as usize));
}
