//! Kills the host while modules write to the key-value store: each write happens once.

use std::time::Duration;

use http::Method;
use rusqlite::Connection;
use serde_json::Value;

use super::faulty_platform::{Fault, FaultyPlatform, Question};
use super::harness::until;
use super::host::{Config, Host, TENANT};

const COMPLETIONS: &str = "/openai/chat/completions";

/// The module's value under a key.
async fn stored(host: &Host, key: &str) -> Value {
    host.get(&format!("/api/keyvalue/{TENANT}/Test/default/value?key={key}")).await["value"].clone()
}

/// Starts a host with a module that increments and then waits for a completion, and kills it there.
async fn kill_after_increment(module: &str) -> (FaultyPlatform, Host, Question) {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", module).start(&faulty_platform).await;
    faulty_platform.plan(Method::POST, COMPLETIONS, "", 1, Fault::Hold);
    let question = faulty_platform.ask("Test", "kv-count-and hits|complete hello", None).await;
    host.post_acknowledged(&question).await;
    faulty_platform.asked_for(&Method::POST, COMPLETIONS, 1).await;
    host.kill();
    (faulty_platform, host, question)
}

fn database(host: &Host, name: &str) -> Connection {
    Connection::open(host.file(".modhost").join(name)).unwrap()
}

/// Deletes the recorded answer from the journal, as if the host had been killed between incrementing and recording.
fn lose_the_answer(host: &Host) {
    let lost = "UPDATE calls SET answer = NULL WHERE import = 'keyvalue.increment' AND answer IS NOT NULL";
    assert_eq!(database(host, "journal.sqlite").execute(lost, []).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_increment_is_replayed() {
    let (_faulty_platform, host, question) = kill_after_increment("").await;
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(stored(&host, "hits").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn increment_without_a_recorded_answer_is_not_repeated() {
    let (_faulty_platform, host, question) = kill_after_increment("").await;
    lose_the_answer(&host);
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(stored(&host, "hits").await, "1");
    // The call was repeated and returned its original answer.
    assert_eq!(host.totals().await["calls_made_again"], 2);
}

/// Only the store records that the increment was done: without that record, it is repeated.
#[tokio::test(flavor = "multi_thread")]
async fn store_deduplicates_increments() {
    let (_faulty_platform, host, question) = kill_after_increment("").await;
    lose_the_answer(&host);
    assert_eq!(database(&host, "keyvalue.sqlite").execute("DELETE FROM done", []).unwrap(), 1);
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(stored(&host, "hits").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_resume_it_increments_again() {
    let (_faulty_platform, host, question) = kill_after_increment("resume = false").await;
    host.start().await;
    host.in_state(&question, "completed").await;
    assert_eq!(stored(&host, "hits").await, "2");
}

/// With kills at random moments under load, the sum equals the number of events.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_increments_once_despite_kills() {
    const KILLS: u32 = 5;
    const EVENTS: u32 = 30;
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", "retry = { attempts = 1000 }").lay_out(&faulty_platform);
    let mut events = 0;
    for _ in 0..KILLS {
        host.start().await;
        for _ in 0..EVENTS {
            let question = faulty_platform.ask("Test", "kv-count-and hits|kv-append log .", None).await;
            host.post_acknowledged(&question).await;
            events += 1;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..30))).await;
        host.kill();
    }
    host.start().await;
    until("all deliveries to complete", async || {
        (host.totals().await["deliveries"]["completed"] == events).then_some(())
    })
    .await;
    assert_eq!(stored(&host, "hits").await, events.to_string());
    assert_eq!(stored(&host, "log").await, ".".repeat(events as usize));
}
