//! Tests of stopping a host, of starting it twice, and of a damaged journal.

use std::fs;

use http::Method;

use super::far_side::{FarSide, Fault};
use super::harness::until;
use super::host::{Config, TENANT};

const COMPLETIONS: &str = "/openai/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_running_deliveries_and_keeps_waiting_ones() {
    let far_side = FarSide::start(&["Assistant"]).await;
    let one_at_a_time = "limits = { concurrency = 1 }";
    let host = Config::new().module("Assistant", "assistant", one_at_a_time).start(&far_side).await;
    far_side.plan(Method::POST, COMPLETIONS, "", 1, Fault::Hold);
    let runs = far_side.ask("Assistant", "What about expenses?", None).await;
    host.take(&runs).await;
    far_side.asked_for(&Method::POST, COMPLETIONS, 1).await;
    let waits = far_side.ask("Assistant", "What about travel?", None).await;
    host.take(&waits).await;

    host.terminate();
    host.logged(&["stopping"]).await;
    let late = far_side.ask("Assistant", "What about me?", None).await;
    let refused = until("the host to refuse events", async || {
        host.post_to(TENANT, &late.event).await.filter(|posted| !posted.is_acknowledged())
    })
    .await;
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some());
    far_side.let_go();
    let status = host.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(far_side.reply(&runs).await.is_complete());
    assert!(!far_side.reply(&waits).await.is_complete());

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
    let far_side = FarSide::start(&[]).await;
    let host = Config::new().start(&far_side).await;
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
    let far_side = FarSide::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", "").start(&far_side).await;
    let question = far_side.ask("Test", "reply Hello", None).await;
    host.take(&question).await;
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
    let far_side = FarSide::start(&["Test"]).await;
    let host = Config::new().module("Test", "test_guest", "").start(&far_side).await;
    let first = far_side.ask("Test", "kv-set color red", None).await;
    host.take(&first).await;
    host.in_state(&first, "completed").await;
    host.terminate();
    host.ended().await;
    // All changes from here on are only in the write-ahead log.
    host.start().await;
    let second = far_side.ask("Test", "kv-set color blue", None).await;
    host.take(&second).await;
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
    // The refused starts checkpointed this log into its database, so that it needs new changes.
    let third = far_side.ask("Test", "kv-set color green", None).await;
    host.take(&third).await;
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
