//! What a new version has to show before it serves: rehearsals, and a trial on a share of the deliveries.

use std::fs;

use modhost::engine::ContentHash;
use serde_json::{Value, json};

use super::harness::{Does, Host, Settings, chat, http, modules, small, small_that, standing, told, until};

fn version(bytes: &[u8]) -> String {
    ContentHash::of(bytes).to_string()
}

/// A host with one small module under these settings for its swaps.
async fn host(swap: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), small("one")).unwrap();
    Settings::new().module_file("Test", "module.wasm", &format!("swap = {{ {swap} }}")).start_in(folder).await
}

async fn says(host: &Host) -> String {
    chat(host, "Test", "who are you?").await.text().to_owned()
}

async fn figure(host: &Host, name: &str) -> f64 {
    let text = http().get(format!("{}/metrics", host.admin)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().parse().unwrap()
}

/// Saves a version and waits until it is refused for a reason with these words.
async fn refused(host: &Host, bytes: &[u8], words: &str) -> String {
    host.save("module.wasm", bytes);
    until(&format!("a refusal: {words}"), async || {
        let reason = host.module("Test").await["refused"].as_str()?.to_owned();
        reason.contains(words).then_some(reason)
    })
    .await
}

#[tokio::test]
async fn a_version_that_spoils_a_recorded_delivery_is_refused() {
    let host = host("replay = 20").await;
    assert_eq!(says(&host).await, "one");
    let delivery = &until("the delivery to be completed", async || {
        let url = format!("{}/api/deliveries?state=completed", host.admin);
        let deliveries: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        deliveries["deliveries"][0]["id"].as_str().map(str::to_owned)
    })
    .await;

    for (does, words) in [
        (Does::Traps, "it traps"),
        (Does::Fails, "it fails: bad"),
        (Does::Replies(0), "never writes a reply"),
        (Does::Replies(2), "asks for messages.reply more often than was recorded"),
    ] {
        let bytes = small_that("bad", does, 0);
        let reason = refused(&host, &bytes, words).await;
        assert!(reason.contains(delivery) && reason.contains(&version(&small("one"))), "{reason}");
        host.logged(&["ERROR", "the new version", &version(&bytes), "is not taken", "goes on serving", words]).await;
        assert_eq!(host.module("Test").await["version"], version(&small("one")));
    }
    assert_eq!(figure(&host, r#"modhost_swaps_refused_total{module="Test",by="gate"}"#).await, 4.0);
    let history = told(&host, &["history", "Test"]).await;
    assert_eq!(history.iter().filter(|entry| entry["role"] == "refused" && entry["kept"] == true).count(), 4);
    // Nothing of it reached the platform: the chat is as it was, and nothing was counted as an attempt.
    assert_eq!(figure(&host, r#"modhost_calls_total{import="messages.reply",outcome="ok"}"#).await, 1.0);

    // What it says is its own matter.
    let next = small("two");
    host.save("module.wasm", &next);
    host.serves("Test", &next).await;
    host.logged(&["rehearsed: 1 delivery ends well on it", &version(&next)]).await;
    assert_eq!(says(&host).await, "two");

    // A person's word goes before the gate's.
    let bad = small_that("bad", Does::Replies(2), 0);
    refused(&host, &bad, "more often").await;
    assert_eq!(told(&host, &["pin", "Test", &version(&bad)]).await[0]["version"], version(&bad));
}

#[tokio::test]
async fn a_refused_version_is_refused_after_a_restart_too_and_the_old_one_serves() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let settings = Settings::new().module_file("Test", file.to_str().unwrap(), "swap = { replay = 5 }");
    let settings = settings.args(&["--data-dir", data.path().join("data").to_str().unwrap()]);
    let mut host = settings.start().await;
    assert_eq!(says(&host).await, "one");
    host.stop().await;
    // Deployed while the host was down.
    fs::write(&file, small_that("bad", Does::Traps, 0)).unwrap();
    let host = settings.start().await;
    host.logged(&["ERROR", "is not taken", "it traps"]).await;
    assert_eq!(says(&host).await, "one");
}

#[tokio::test]
async fn a_version_that_does_worse_on_trial_goes_back_by_itself() {
    let host = host("canary = \"50%\", for = \"1h\"").await;
    let bad = small_that("bad", Does::Fails, 0);
    host.save("module.wasm", &bad);
    until("the trial to begin", async || {
        (standing(&host, "Test").await["canary"]["version"] == *version(&bad)).then_some(())
    })
    .await;
    let list = modules(&host, &[]).await;
    assert!(list.stdout.contains(&format!("canary {}: 50%", version(&bad))), "{list:?}");
    assert_eq!(standing(&host, "Test").await["versions_loaded"], 2);

    let mut sent = 0;
    let line = until("it to go back", async || {
        for _ in 0..5 {
            // Chats, as the platform has to know the reply for the version before to complete it.
            chat(&host, "Test", "hello").await;
            sent += 1;
        }
        assert!(sent < 500, "it goes on failing");
        host.log().lines().find(|line| line.contains("does worse and goes back")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("WARN") && line.contains("deliveries failed, and 0 of the"), "{line}");
    let now = until("the end of the trial", async || {
        let now = standing(&host, "Test").await;
        now["canary"].is_null().then_some(now)
    })
    .await;
    assert_eq!(
        (&now["version"], &now["held_back"]["version"]),
        (&json!(version(&small("one"))), &json!(version(&bad)))
    );
    assert_eq!(says(&host).await, "one");
    assert_eq!(figure(&host, r#"modhost_canaries_total{module="Test",outcome="went_back"}"#).await, 1.0);

    // Another file is another matter.
    let good = small("two");
    host.save("module.wasm", &good);
    host.logged(&["new version is tried on 50%", &version(&good)]).await;
    assert_eq!(told(&host, &["promote", "Test"]).await[0]["version"], version(&good));
    assert_eq!(says(&host).await, "two");
    let history = told(&host, &["history", "Test"]).await;
    assert_eq!((&history[0]["origin"], &history[0]["by"]), (&json!("canary"), &json!("ann")));
    let none = modules(&host, &["abort", "Test"]).await;
    assert!(none.code == 1 && none.stderr.contains("no version of Test is on trial"), "{none:?}");
}

#[tokio::test]
async fn a_version_that_does_as_well_takes_over_at_the_end() {
    let host = host("replay = 3, canary = \"20%\", for = \"2s\"").await;
    assert_eq!(says(&host).await, "one");
    let next = small("two");
    host.save("module.wasm", &next);
    host.logged(&["rehearsed: 1 delivery ends well on it"]).await;
    host.logged(&["new version is tried on 20% of deliveries for 2s"]).await;
    for _ in 0..5 {
        assert!(["one", "two"].contains(&says(&host).await.as_str()));
    }
    host.serves("Test", &next).await;
    host.logged(&["new version serves; took over after 2s", &version(&next)]).await;
    assert_eq!(figure(&host, r#"modhost_canaries_total{module="Test",outcome="took_over"}"#).await, 1.0);
    assert_eq!(figure(&host, r#"modhost_swaps_total{module="Test",origin="canary"}"#).await, 1.0);
}

#[tokio::test]
async fn a_trial_goes_on_after_a_restart_with_its_time_and_its_counts() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let swap = "swap = { canary = \"50%\", for = \"1h\" }";
    let settings = Settings::new().module_file("Test", file.to_str().unwrap(), swap);
    let settings = settings.args(&["--data-dir", data.path().join("data").to_str().unwrap()]);
    let mut host = settings.start().await;
    let bad = small_that("bad", Does::Fails, 0);
    fs::write(&file, &bad).unwrap();
    host.logged(&["new version is tried on 50%"]).await;
    let trial = async |host: &Host| standing(host, "Test").await["canary"].clone();
    let counts =
        |trial: &Value| ["runs", "failed", "stable_runs", "stable_failed"].map(|key| trial[key].as_u64().unwrap());
    let left = |trial: &Value| trial["seconds_left"].as_u64().unwrap();
    // Three say nothing yet: five is the least.
    until("three failures on trial", async || {
        chat(&host, "Test", "hello").await;
        (counts(&trial(&host).await)[1] >= 3).then_some(())
    })
    .await;
    let before = until("some time to be over", async || {
        let trial = trial(&host).await;
        (left(&trial) < 3597).then_some(trial)
    })
    .await;
    host.stop().await;

    let host = settings.start().await;
    let [runs, failed, ..] = counts(&before);
    host.logged(&["is tried on 50% again", &format!("so far {failed} of its {runs} deliveries failed")]).await;
    let after = trial(&host).await;
    assert_eq!(counts(&after), counts(&before));
    assert!(left(&after) <= left(&before), "{before} {after}");
    let mut sent = 0;
    until("it to go back", async || {
        chat(&host, "Test", "hello").await;
        sent += 1;
        assert!(sent < 500, "it goes on failing");
        host.log().contains("does worse and goes back").then_some(())
    })
    .await;
    // The next trial has nothing of this one.
    fs::write(&file, small_that("worse", Does::Fails, 0)).unwrap();
    let next = until("the next trial", async || {
        let trial = trial(&host).await;
        (!trial.is_null()).then_some(trial)
    })
    .await;
    assert_eq!((counts(&next), left(&next) > left(&after)), ([0; 4], true));
}

#[tokio::test]
async fn a_trial_can_be_ended_and_goes_on_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let settings =
        Settings::new().module_file("Test", file.to_str().unwrap(), "swap = { canary = \"99%\", for = \"1h\" }");
    let settings = settings.args(&["--data-dir", data.path().join("data").to_str().unwrap()]);
    let mut host = settings.start().await;
    assert_eq!(
        standing(&host, "Test").await["canary"],
        Value::Null,
        "the first version has nothing to be held against"
    );
    fs::write(&file, small("two")).unwrap();
    host.logged(&["new version is tried on 99%"]).await;
    let since = standing(&host, "Test").await["canary"]["since"].clone();
    host.stop().await;

    let host = settings.start().await;
    host.logged(&["is tried on 99% again", &version(&small("two"))]).await;
    let now = standing(&host, "Test").await;
    assert_eq!((&now["version"], &now["canary"]["since"]), (&json!(version(&small("one"))), &since));
    // Nearly all deliveries are its own.
    until("an answer of the version on trial", async || (says(&host).await == "two").then_some(())).await;

    let back = modules(&host, &["rollback", "Test"]).await;
    assert!(back.code == 1 && back.stderr.contains("is on trial; `modhost modules abort Test` ends that"), "{back:?}");
    let now = told(&host, &["abort", "Test"]).await.remove(0);
    assert_eq!((&now["canary"], &now["held_back"]["why"]), (&Value::Null, &json!("ann ended its trial")));
    assert_eq!(says(&host).await, "one");
    // Unpinning takes the file after all: on trial, as the settings have it.
    assert_eq!(told(&host, &["unpin", "Test"]).await[0]["canary"]["version"], version(&small("two")));
}
