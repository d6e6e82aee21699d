//! Tests of stopping a host, of starting it twice, and of a damaged journal.

use std::fs;

use http::Method;

use super::faulty_platform::{Fault, FaultyPlatform};
use super::harness::until;
use super::host::{Config, TENANT};

const COMPLETIONS: &str = "/openai/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_running_deliveries_and_keeps_waiting_ones() {
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let one_at_a_time = "limits = { concurrency = 1 }";
    let host = Config::new().module("Assistant", "assistant", one_at_a_time).start(&faulty_platform).await;
    faulty_platform.plan(Method::POST, COMPLETIONS, "", 1, Fault::Hold);
    let runs = faulty_platform.ask("Assistant", "What about expenses?", None).await;
    host.post_acknowledged(&runs).await;
    faulty_platform.asked_for(&Method::POST, COMPLETIONS, 1).await;
    let waits = faulty_platform.ask("Assistant", "What about travel?", None).await;
    host.post_acknowledged(&waits).await;

    host.terminate();
    host.logged(&["stopping"]).await;
    let late = faulty_platform.ask("Assistant", "What about me?", None).await;
    let refused = until("the host to refuse events", async || {
        host.post_to(TENANT, &late.event).await.filter(|posted| !posted.is_acknowledged())
    })
    .await;
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some());
    faulty_platform.release();
    let status = host.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(faulty_platform.reply(&runs).await.is_complete());
    assert!(!faulty_platform.reply(&waits).await.is_complete());

    let data_dir = host.file(".modhost");
    let at_rest = host.command(&["deliveries", "--data-dir", data_dir.to_str().unwrap(), "--json"]).output().unwrap();
    let at_rest = String::from_utf8(at_rest.stdout).unwrap();
    let states: Vec<&str> =
        at_rest.lines().map(|line| if line.contains(r#""state":"waiting""#) { "waiting" } else { "ended" }).collect();
    assert_eq!(states, ["waiting", "ended"], "{at_rest}");

    host.start().await;
    assert_eq!(host.in_state(&waits, "completed").await["attempts"], 1);
    host.logged(&["deliveries are waiting from before the start", "deliveries=1"]).await;
    assert!(!host.log().contains("did not shut down cleanly"), "a clean stop was reported as a crash");
    assert_eq!(host.in_state(&runs, "completed").await["attempts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_a_second_host_on_the_same_data_directory() {
    let faulty_platform = FaultyPlatform::start(&[]).await;
    let host = Config::new().start(&faulty_platform).await;
    let second = host.command(&["serve", "--port", "0", "--admin-port", "0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert!(
        stderr.contains("another modhost (process ") && stderr.contains("give this one another directory"),
        "{stderr}"
    );
    assert_eq!(host.totals().await["deliveries"]["waiting"], 0, "the first host keeps running");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_journal_is_refused_and_unchanged() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", "").start(&faulty_platform).await;
    let question = faulty_platform.ask("Test", "reply Hello", None).await;
    host.post_acknowledged(&question).await;
    host.in_state(&question, "completed").await;
    host.terminate();
    host.ended().await;

    let file = host.file(".modhost/journal.sqlite");
    let whole = fs::read(&file).unwrap();
    let mut scribbled = whole.clone();
    let half = scribbled.len() / 2;
    scribbled[4096..half].fill(0xaa);
    for damaged in [&whole[..half], &scribbled, b"", b"not a database at all, but long enough to look at"] {
        fs::write(&file, damaged).unwrap();
        let refused = host.command(&["serve", "--port", "0", "--admin-port", "0"]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert!(
            stderr.contains("journal.sqlite") && stderr.contains("move"),
            "the error has no instructions: {stderr}"
        );
        assert_eq!(fs::read(&file).unwrap(), damaged, "{stderr}");
    }
    fs::write(&file, &whole).unwrap();
    host.start().await;
    assert_eq!(host.delivery(&question).await["state"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_without_its_wal_is_refused_until_restored_or_abandoned() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", "").start(&faulty_platform).await;
    let first = faulty_platform.ask("Test", "kv-set color red", None).await;
    host.post_acknowledged(&first).await;
    host.in_state(&first, "completed").await;
    host.terminate();
    host.ended().await;
    // All changes from here on are only in the write-ahead log.
    host.start().await;
    let second = faulty_platform.ask("Test", "kv-set color blue", None).await;
    host.post_acknowledged(&second).await;
    host.in_state(&second, "completed").await;
    host.kill();

    let logs = ["journal.sqlite-wal", "keyvalue.sqlite-wal"].map(|name| host.file(&format!(".modhost/{name}")));
    let saved = logs.each_ref().map(|log| fs::read(log).unwrap());
    for (log, content) in logs.iter().zip(&saved) {
        let name = log.file_name().unwrap().to_str().unwrap();
        fs::remove_file(log).unwrap();
        let refused = host.command(&["serve", "--port", "0", "--admin-port", "0"]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let stderr = String::from_utf8(refused.stderr).unwrap();
        for words in ["changes are missing, committed after 20", name, "--accept-data-loss"] {
            assert!(stderr.contains(words), "no {words:?} in {stderr}");
        }
        fs::write(log, content).unwrap();
    }
    host.start().await;
    assert_eq!(host.delivery(&second).await["state"], "completed", "the log was restored");
    // The refused starts checkpointed this log into the database, so the log needs new changes.
    let third = faulty_platform.ask("Test", "kv-set color green", None).await;
    host.post_acknowledged(&third).await;
    host.in_state(&third, "completed").await;
    host.kill();

    logs.iter().for_each(|log| fs::remove_file(log).unwrap());
    host.spawn_with(&["--accept-data-loss"]);
    host.listening().await;
    host.logged(&["continuing without lost changes", "journal.sqlite", "changes are missing"]).await;
    assert_eq!(host.delivery(&first).await["state"], "completed");
    assert!(host.deliveries_of(third.id()).await.is_empty(), "the abandoned changes are gone");
    host.kill();
    host.start().await;
}
