//! Tests of the recorded versions and of the admin operations on them: rollback, pin, pause.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use modhost_storage::versions::ContentHash;
use serde_json::{Value, json};

use super::harness::{
    Behavior, Host, Settings, chat, chosen, http, module_state, modules, modules_json, say, signed_post, small,
    small_with, until, wait_for_answer,
};

fn version(bytes: &[u8]) -> String {
    ContentHash::of(bytes).to_string()
}

/// Starts a host whose module file and data directory outlive it.
async fn start(data: &Path, lines: &str) -> Host {
    let file = data.join("module.wasm");
    let settings = Settings::new().module_file("Test", file.to_str().unwrap(), lines);
    settings.args(&["--data-dir", data.join("data").to_str().unwrap()]).start().await
}

/// Replaces the module's file.
fn save(data: &Path, bytes: &[u8]) {
    fs::write(data.join("new"), bytes).unwrap();
    fs::rename(data.join("new"), data.join("module.wasm")).unwrap();
}

async fn ask(host: &Host) -> String {
    chat(host, "Test", "who are you?").await.text().to_owned()
}

#[tokio::test]
async fn rollback_lasts_until_the_file_changes() {
    let data = tempfile::tempdir().unwrap();
    let [one, two, three] = ["one", "two", "three"].map(small);
    save(data.path(), &one);
    let mut host = start(data.path(), "").await;
    let none = modules(&host, &["rollback", "Test"]).await;
    assert!(none.code == 1 && none.stderr.contains("there is no earlier version of Test"), "{none:?}");
    for bytes in [&two, &three] {
        save(data.path(), bytes);
        host.serves("Test", bytes).await;
    }

    assert_eq!(modules_json(&host, &["rollback", "Test"]).await[0]["version"], version(&two));
    assert_eq!(ask(&host).await, "two");
    // Rewriting the same file doesn't undo the rollback, and neither does a reload of other settings.
    save(data.path(), &three);
    host.logged(&[
        "version in the file is not loaded",
        &version(&three),
        "ann went back from it",
        "modhost modules unpin Test",
    ])
    .await;
    assert_eq!(modules_json(&host, &["rollback", "Test"]).await[0]["version"], version(&one));
    assert_eq!(ask(&host).await, "one");
    let at_the_end = modules(&host, &["rollback", "Test"]).await;
    assert!(at_the_end.code == 1 && at_the_end.stderr.contains("no earlier version"), "{at_the_end:?}");
    assert_eq!(module_state(&host, "Test").await["held_back"]["version"], version(&three));

    // Neither a restart nor a deleted file changes anything.
    host.stop().await;
    let mut host = start(data.path(), "").await;
    assert_eq!(ask(&host).await, "one");
    host.stop().await;
    fs::remove_file(data.path().join("module.wasm")).unwrap();
    let host = start(data.path(), "").await;
    assert_eq!(ask(&host).await, "one");
    host.logged(&["ERROR", "the file cannot serve; the stable version stays", "can't read"]).await;

    save(data.path(), &two);
    host.serves("Test", &two).await;
    assert_eq!(module_state(&host, "Test").await["held_back"], Value::Null);
    save(data.path(), &three);
    host.serves("Test", &three).await;

    let history = modules_json(&host, &["history", "Test"]).await;
    let summary = |entry: &Value| {
        let [version, origin, by] = ["version", "origin", "by"].map(|key| entry[key].as_str().map(str::to_owned));
        (version.unwrap(), origin.unwrap(), by)
    };
    let (ann, file) = (|| Some("ann".to_owned()), || "file".to_owned());
    let wanted = [
        (version(&three), file(), None),
        (version(&two), file(), None),
        (version(&one), "rollback".into(), ann()),
        (version(&two), "rollback".into(), ann()),
        (version(&three), file(), None),
        (version(&two), file(), None),
        (version(&one), file(), None),
    ];
    assert_eq!(history.iter().map(summary).collect::<Vec<_>>(), wanted);
    assert_eq!(history[1]["reason"], format!("replaced by {}", version(&three)));
    assert!(history[0]["ended_at"].is_null() && history.iter().all(|entry| entry["kept"] == true), "{history:#?}");
}

#[tokio::test]
async fn pinned_module_ignores_its_file() {
    let data = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(small);
    save(data.path(), &one);
    let mut host = start(data.path(), "").await;
    save(data.path(), &two);
    host.serves("Test", &two).await;

    let full = ContentHash::of(&one).to_hex();
    assert_eq!(modules_json(&host, &["pin", "Test", &full[..9]]).await[0]["pinned"]["by"], "ann");
    assert_eq!(ask(&host).await, "one");
    save(data.path(), &small("three"));
    host.logged(&["version in the file is not loaded", &version(&small("three")), "the module is pinned to", "by ann"])
        .await;
    assert_eq!(ask(&host).await, "one");
    let back = modules(&host, &["rollback", "Test"]).await;
    assert!(back.code == 1 && back.stderr.contains("is pinned to"), "{back:?}");

    host.stop().await;
    let host = start(data.path(), "").await;
    assert_eq!(ask(&host).await, "one");
    assert_eq!(modules_json(&host, &["unpin", "Test"]).await[0]["version"], version(&small("three")));
    let again = modules(&host, &["unpin", "Test"]).await;
    assert!(again.code == 1 && again.stderr.contains("follows its file"), "{again:?}");
}

/// After a pin or a rollback, the file's version must not run, even if no other version can.
#[tokio::test]
async fn deliveries_wait_if_the_pinned_version_is_lost() {
    for (order, words) in [("pin", "is pinned to"), ("rollback", "ann went back from it")] {
        let data = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(small);
        save(data.path(), &one);
        let mut host = start(data.path(), "").await;
        save(data.path(), &two);
        host.serves("Test", &two).await;
        let hash = ContentHash::of(&one).to_hex();
        let args = if order == "pin" { vec!["pin", "Test", &hash] } else { vec!["rollback", "Test"] };
        assert_eq!(modules_json(&host, &args).await[0]["version"], version(&one));
        host.stop().await;
        for kept in fs::read_dir(data.path().join("data/versions")).unwrap() {
            fs::remove_file(kept.unwrap().path()).unwrap();
        }
        let host = start(data.path(), "").await;
        let now = module_state(&host, "Test").await;
        let reason = now["waiting"]["reason"].as_str().unwrap_or_default();
        assert!(now["version"].is_null() && reason.contains("no longer kept") && reason.contains(words), "{now}");
        let asked = say(&host.platform, "Test", "who are you?").await;
        assert_eq!(modules_json(&host, &["unpin", "Test"]).await[0]["version"], version(&two));
        assert_eq!(wait_for_answer(&host, &asked).await.text(), "two");
    }
}

/// The file keeps changing while an operator pins versions: once `pin` returns, only the pinned version serves.
#[tokio::test]
async fn pin_takes_effect_before_it_returns() {
    let data = tempfile::tempdir().unwrap();
    let all: Vec<Vec<u8>> = (0..6).map(|number| small(&format!("version {number}"))).collect();
    save(data.path(), &all[0]);
    let host = start(data.path(), "").await;
    for bytes in &all {
        save(data.path(), bytes);
        host.serves("Test", bytes).await;
    }
    let stop = AtomicBool::new(false);
    let saving = async {
        for bytes in all.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            save(data.path(), bytes);
            tokio::task::yield_now().await;
            // Long enough for the file to count as completely written.
            tokio::time::sleep(std::time::Duration::from_millis(70)).await;
        }
    };
    let ordering = async {
        for round in 0..15 {
            let wanted = version(&all[round % all.len()]);
            assert_eq!(modules_json(&host, &["pin", "Test", &wanted]).await[0]["version"], wanted);
            for _ in 0..10 {
                assert_eq!(host.module("Test").await["version"], wanted, "round {round}");
            }
            modules_json(&host, &["unpin", "Test"]).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    futures::join!(saving, ordering);
    // After unpinning, the file counts again.
    save(data.path(), &all[3]);
    host.serves("Test", &all[3]).await;
    assert_eq!(ask(&host).await, "version 3");
}

/// Two concurrent rollbacks go back two versions, as sequential ones do.
#[tokio::test]
async fn concurrent_operations_are_serialized() {
    let data = tempfile::tempdir().unwrap();
    let all: Vec<Vec<u8>> = (0..5).map(|number| small(&format!("version {number}"))).collect();
    save(data.path(), &all[0]);
    let host = start(data.path(), "").await;
    for bytes in &all {
        save(data.path(), bytes);
        host.serves("Test", bytes).await;
    }
    let orders = (0..3).map(|_| modules(&host, &["rollback", "Test"]));
    for ran in futures::future::join_all(orders).await {
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(host.module("Test").await["version"], version(&all[1]));
    assert_eq!(ask(&host).await, "version 1");
}

#[tokio::test]
async fn version_arguments_are_validated() {
    let data = tempfile::tempdir().unwrap();
    save(data.path(), &small("0"));
    let host = start(data.path(), "").await;
    // Among seventeen hashes, two start with the same hex digit.
    let all: Vec<Vec<u8>> = (0..17).map(|number| small(&number.to_string())).collect();
    let first = |bytes: &Vec<u8>| version(bytes).remove(0);
    let (index, twin) =
        (1..).zip(&all[1..]).find(|(index, it)| all[..*index].iter().any(|e| first(e) == first(it))).unwrap();
    for bytes in &all[1..=index] {
        save(data.path(), bytes);
        host.serves("Test", bytes).await;
    }
    for (args, words) in [
        (["pin", "Test", &first(twin).to_string()], "more than one version of Test begins with"),
        (["pin", "Test", "zz"], "is not the beginning of a hash"),
        (["pin", "Test", "0123456789"], "has no version that begins with 0123456789"),
        (["pin", "Tset", "00"], "there is no module Tset in modules.toml; did you mean Test?"),
    ] {
        let ran = modules(&host, &args).await;
        assert!(ran.code == 1 && ran.stderr.contains(words), "{args:?}: {ran:?}");
    }
    // Only the last ten versions are kept.
    let history = modules_json(&host, &["history", "Test"]).await;
    assert_eq!(history.iter().filter(|entry| entry["kept"] == true).count(), history.len().min(10));
    let nobody = modules(&host, &["history", "Nobody"]).await;
    assert!(nobody.code == 1 && nobody.stderr.contains("there is no module Nobody"), "{nobody:?}");
}

#[tokio::test]
async fn paused_module_keeps_deliveries_waiting() {
    let data = tempfile::tempdir().unwrap();
    save(data.path(), &small("here"));
    let mut host = start(data.path(), "").await;
    assert_eq!(modules_json(&host, &["pause", "Test"]).await[0]["paused"]["by"], "ann");
    let waiting: Vec<String> = {
        let mut chats = Vec::new();
        for number in 0..3 {
            chats.push(say(&host.platform, "Test", &number.to_string()).await);
        }
        chats
    };
    let deliveries = async |host: &Host, state: &str| {
        let url = format!("{}/api/deliveries?module=Test&state={state}", host.admin);
        let list: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        list["deliveries"].as_array().unwrap().clone()
    };
    until("all deliveries to wait", async || (deliveries(&host, "waiting").await.len() == 3).then_some(())).await;
    let health = host.health().await;
    assert_eq!((&health["status"], &health["modules"][0]["paused"]), (&json!("ok"), &json!(true)));

    host.stop().await;
    let host = start(data.path(), "").await;
    assert_eq!(deliveries(&host, "waiting").await.len(), 3);
    // A new version is loaded during the pause, and answers the waiting deliveries.
    save(data.path(), &small("here again"));
    host.serves("Test", &small("here again")).await;
    let list = modules(&host, &[]).await;
    assert!(list.stdout.contains("paused"), "{list:?}");
    let waits = deliveries(&host, "waiting").await;
    assert!(waits.iter().all(|delivery| delivery["attempts"] == 0), "no attempt was started: {waits:?}");

    modules_json(&host, &["resume", "Test"]).await;
    let done = until("all deliveries to complete", async || {
        let done = deliveries(&host, "completed").await;
        (done.len() == 3).then_some(done)
    })
    .await;
    assert!(done.iter().all(|delivery| delivery["attempts"] == 1), "{done:?}");
    for chat in waiting {
        assert_eq!(wait_for_answer(&host, &chat).await.text(), "here again");
    }
}

#[tokio::test]
async fn paused_module_does_not_block_others() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.wasm"), small("a")).unwrap();
    fs::write(folder.path().join("b.wasm"), small("b")).unwrap();
    let settings = Settings::new().module_file("A", "a.wasm", "").module_file("B", "b.wasm", "");
    let host = settings.server("concurrency = 1").start_in(folder).await;
    modules_json(&host, &["pause", "A"]).await;
    for number in 0..20 {
        signed_post(&host.webhook, chosen(&format!("evt_{number}"), "A", "wait").to_string()).await;
    }
    for _ in 0..5 {
        assert_eq!(chat(&host, "B", "hello").await.text(), "b");
    }
    assert_eq!(module_state(&host, "A").await["in_flight"], 0);
}

#[tokio::test]
async fn damaged_versions_file_is_refused_and_unchanged() {
    let data = tempfile::tempdir().unwrap();
    save(data.path(), &small("one"));
    let mut host = start(data.path(), "").await;
    host.stop().await;
    let file = data.path().join("data/versions.sqlite");
    fs::write(&file, "not a database").unwrap();
    let path = data.path().join("data");
    let ran = super::harness::modhost(
        host.folder(),
        "dev",
        &[
            "--port",
            "0",
            "--admin-port",
            "0",
            "--platform-port",
            "0",
            "--no-build",
            "--data-dir",
            path.to_str().unwrap(),
        ],
        &[],
    )
    .await;
    assert!(ran.code == 1 && ran.stderr.contains("is not a record of versions"), "{ran:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a database");
}

#[tokio::test]
async fn refuses_to_roll_back_to_a_version_that_no_longer_loads() {
    let data = tempfile::tempdir().unwrap();
    // It needs more memory than the later settings allow.
    let large = small_with("large", Behavior::Replies(1), 2 << 20);
    save(data.path(), &large);
    let mut host = start(data.path(), "").await;
    save(data.path(), &small("two"));
    host.serves("Test", &small("two")).await;
    host.stop().await;
    let host = start(data.path(), "limits = { memory = \"1MiB\" }").await;
    let ran = modules(&host, &["rollback", "Test"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("can't serve: it can't start within its limits: memory"), "{ran:?}");
    assert_eq!(ask(&host).await, "two");
}
