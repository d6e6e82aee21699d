//! Tests of the checks before a new version serves: dry runs of recorded deliveries, and a canary on a share of the
//! deliveries.

use std::fs;

use modhost_storage::versions::ContentHash;
use serde_json::{Value, json};

use super::harness::{
    Behavior, Host, Settings, chat, http, modhost, module_state, modules, modules_json, small, small_with, until,
};

fn version(bytes: &[u8]) -> String {
    ContentHash::of(bytes).to_string()
}

/// Starts a host with one small module and these `swap` settings.
async fn host(swap: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), small("one")).unwrap();
    settings(swap).start_in(folder).await
}

fn settings(swap: &str) -> Settings {
    Settings::new().module_file("Test", "module.wasm", &format!("swap = {{ {swap} }}"))
}

/// Waits until a delivery is completed, and returns its id.
async fn completed(host: &Host) -> String {
    until("the delivery to complete", async || {
        let url = format!("{}/api/deliveries?state=completed", host.admin);
        let deliveries: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        deliveries["deliveries"][0]["id"].as_str().map(str::to_owned)
    })
    .await
}

async fn ask(host: &Host) -> String {
    chat(host, "Test", "who are you?").await.text().to_owned()
}

async fn metric(host: &Host, name: &str) -> f64 {
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
async fn refuses_a_version_that_fails_a_dry_run() {
    let host = host("replay = 20").await;
    assert_eq!(ask(&host).await, "one");
    let delivery = &completed(&host).await;

    for (does, words) in [
        (Behavior::Traps, "it traps"),
        (Behavior::Fails, "it fails: bad"),
        (Behavior::Replies(0), "never writes a reply"),
        (Behavior::Replies(2), "asks for messages.reply more often than was recorded"),
    ] {
        let bytes = small_with("bad", does, 0);
        let reason = refused(&host, &bytes, words).await;
        assert!(reason.contains(delivery) && reason.contains(&version(&small("one"))), "{reason}");
        host.logged(&["ERROR", "new version failed its dry run", &version(&bytes), words]).await;
        assert_eq!(host.module("Test").await["version"], version(&small("one")));
    }
    assert_eq!(metric(&host, r#"modhost_swaps_refused_total{module="Test",by="gate"}"#).await, 4.0);
    let history = modules_json(&host, &["history", "Test"]).await;
    assert_eq!(history.iter().filter(|entry| entry["role"] == "refused" && entry["kept"] == true).count(), 4);
    // The dry runs had no effect: no call was counted and the chat is unchanged.
    assert_eq!(metric(&host, r#"modhost_calls_total{import="messages.reply",outcome="ok"}"#).await, 1.0);

    // A different text is not a failure.
    let next = small("two");
    host.save("module.wasm", &next);
    host.serves("Test", &next).await;
    host.logged(&["dry run passed", "passed=1", &version(&next)]).await;
    assert_eq!(ask(&host).await, "two");

    // An operator's decision overrides the gate.
    let bad = small_with("bad", Behavior::Replies(2), 0);
    refused(&host, &bad, "more often").await;
    assert_eq!(modules_json(&host, &["pin", "Test", &version(&bad)]).await[0]["version"], version(&bad));
}

#[tokio::test]
async fn refused_version_stays_refused_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let settings = Settings::new().module_file("Test", file.to_str().unwrap(), "swap = { replay = 5 }");
    let settings = settings.args(&["--data-dir", data.path().join("data").to_str().unwrap()]);
    let mut host = settings.start().await;
    assert_eq!(ask(&host).await, "one");
    host.stop().await;
    // A file deployed while the host was stopped.
    fs::write(&file, small_with("bad", Behavior::Traps, 0)).unwrap();
    let host = settings.start().await;
    host.logged(&["ERROR", "new version failed its dry run", "it traps"]).await;
    assert_eq!(ask(&host).await, "one");
}

#[tokio::test]
async fn rolls_back_a_canary_that_fails_more_often() {
    let host = host("canary = \"50%\", for = \"1h\"").await;
    let bad = small_with("bad", Behavior::Fails, 0);
    host.save("module.wasm", &bad);
    until("the canary to start", async || {
        (module_state(&host, "Test").await["canary"]["version"] == *version(&bad)).then_some(())
    })
    .await;
    let list = modules(&host, &[]).await;
    assert!(list.stdout.contains(&format!("canary {}: 50%", version(&bad))), "{list:?}");
    assert_eq!(module_state(&host, "Test").await["versions_loaded"], 2);

    let mut sent = 0;
    let line = until("the canary to be rolled back", async || {
        for _ in 0..5 {
            // Chats, because the old version can complete a reply only if the platform has it.
            chat(&host, "Test", "hello").await;
            sent += 1;
        }
        assert!(sent < 500, "the canary keeps failing");
        host.log().lines().find(|line| line.contains("canary rolled back")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("WARN") && line.contains("deliveries failed, and 0 of the"), "{line}");
    let now = until("the canary to end", async || {
        let now = module_state(&host, "Test").await;
        now["canary"].is_null().then_some(now)
    })
    .await;
    assert_eq!(
        (&now["version"], &now["held_back"]["version"]),
        (&json!(version(&small("one"))), &json!(version(&bad)))
    );
    assert_eq!(ask(&host).await, "one");
    assert_eq!(metric(&host, r#"modhost_canaries_total{module="Test",outcome="went_back"}"#).await, 1.0);

    // New swap settings start another trial; other settings don't.
    host.save_settings(&settings("canary = \"50%\", for = \"1h\"").server("apology = \"Nobody is in.\""));
    host.logged(&["settings reloaded"]).await;
    assert_eq!(ask(&host).await, "one");
    assert_eq!(host.lines(&["canary started"]), 1);
    host.save_settings(&settings("canary = \"60%\", for = \"1h\""));
    host.logged(&["canary started", "percent=60", &version(&bad)]).await;
    modules_json(&host, &["abort", "Test"]).await;
    host.save_settings(&settings("canary = \"50%\", for = \"1h\""));
    until("the other settings", async || (host.lines(&["settings reloaded"]) == 3).then_some(())).await;
    assert_eq!(module_state(&host, "Test").await["held_back"]["why"], "ann ended its trial");

    // Another file gets a trial of its own.
    let good = small("two");
    host.save("module.wasm", &good);
    host.logged(&["canary started", "percent=50", &version(&good)]).await;
    assert_eq!(modules_json(&host, &["promote", "Test"]).await[0]["version"], version(&good));
    assert_eq!(ask(&host).await, "two");
    let history = modules_json(&host, &["history", "Test"]).await;
    assert_eq!((&history[0]["origin"], &history[0]["by"]), (&json!("canary"), &json!("ann")));
    let none = modules(&host, &["abort", "Test"]).await;
    assert!(none.code == 1 && none.stderr.contains("no version of Test is on trial"), "{none:?}");
}

#[tokio::test]
async fn promotes_a_canary_that_does_as_well() {
    let host = host("replay = 3, canary = \"20%\", for = \"2s\"").await;
    assert_eq!(ask(&host).await, "one");
    let next = small("two");
    host.save("module.wasm", &next);
    host.logged(&["dry run passed", "passed=1"]).await;
    host.logged(&["canary started", "percent=20", "period=2s"]).await;
    until("enough deliveries to decide", async || {
        assert!(["one", "two"].contains(&ask(&host).await.as_str()));
        module_state(&host, "Test").await["canary"].is_null().then_some(())
    })
    .await;
    host.serves("Test", &next).await;
    host.logged(&["canary promoted", "took over after 2s", &version(&next)]).await;
    assert_eq!(metric(&host, r#"modhost_canaries_total{module="Test",outcome="took_over"}"#).await, 1.0);
    assert_eq!(metric(&host, r#"modhost_swaps_total{module="Test",origin="canary"}"#).await, 1.0);
}

/// A version that always traps, in a module that nobody uses: it must not be promoted just because its time is over.
#[tokio::test]
async fn idle_canary_waits_for_an_operator() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let swap = "swap = { canary = \"1%\", for = \"10ms\", min_deliveries = 7 }";
    let settings = Settings::new().module_file("Test", file.to_str().unwrap(), swap);
    let settings = settings.args(&["--data-dir", data.path().join("data").to_str().unwrap()]);
    let mut host = settings.start().await;
    let bad = small_with("bad", Behavior::Traps, 0);
    fs::write(&file, &bad).unwrap();
    let waits = async |host: &Host| {
        host.logged(&["WARN", "canary stays on trial", "0 of the 7 deliveries", "modhost modules promote Test"]).await;
        let now = module_state(host, "Test").await;
        let canary = &now["canary"];
        assert_eq!((&now["version"], &canary["version"]), (&json!(version(&small("one"))), &json!(version(&bad))));
        assert_eq!((&canary["seconds_left"], &canary["min_deliveries"]), (&json!(0), &json!(7)));
        assert!(canary["waits_for"].as_str().unwrap().contains("0 of the 7 deliveries"), "{canary}");
    };
    waits(&host).await;
    for (args, words) in [(&["list"][..], "undecided: 0 of the 7"), (&["show", "Test"], "promote Test` or")] {
        let shown = modules(&host, args).await;
        assert!(shown.stdout.contains(words), "{shown:?}");
    }
    // A restart after its time is over doesn't promote it either.
    host.stop().await;
    let host = settings.start().await;
    waits(&host).await;
    for _ in 0..3 {
        chat(&host, "Test", "hello").await;
    }
    assert_eq!(host.lines(&["canary stays on trial"]), 1, "{}", host.log());
    assert_eq!(metric(&host, r#"modhost_swaps_total{module="Test",origin="canary"}"#).await, 0.0);
    // An operator may promote it.
    assert_eq!(modules_json(&host, &["promote", "Test"]).await[0]["version"], version(&bad));
}

#[tokio::test]
async fn promotes_a_canary_after_enough_deliveries() {
    let host = host("canary = \"30%\", for = \"10ms\", min_deliveries = 3").await;
    host.save("module.wasm", small("two"));
    host.logged(&["canary stays on trial"]).await;
    let mut its_own = 0;
    until("the canary to be promoted", async || {
        let now = module_state(&host, "Test").await;
        if now["canary"].is_null() {
            return Some(());
        }
        assert_eq!(now["version"], version(&small("one")), "too early");
        if its_own < 3 {
            its_own += usize::from(ask(&host).await == "two");
        }
        None
    })
    .await;
    host.serves("Test", &small("two")).await;
    let line = host.logged(&["canary promoted", "took over after 10ms"]).await;
    assert!(its_own == 3 && line.contains("0 of its 3 deliveries failed"), "{its_own} {line}");
}

/// Only first attempts count as evidence: a delivery that is retried many times is still one delivery.
#[tokio::test]
async fn retries_count_once() {
    let host = host("canary = \"99%\", for = \"1h\"").await;
    let bad = small_with("bad", Behavior::Fails, 0);
    host.save("module.wasm", &bad);
    host.logged(&["canary started", "percent=99"]).await;
    let runs = async || module_state(&host, "Test").await["canary"]["runs"].as_u64().unwrap();
    let id = until("a delivery that fails on the canary", async || {
        chat(&host, "Test", "hello").await;
        let url = format!("{}/api/deliveries?state=dead", host.admin);
        let dead: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        dead["deliveries"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let before = runs().await;
    for attempts in 2..8 {
        let ran = modhost(host.folder(), "deliveries", &["retry", &id, "--admin", &host.admin], &[]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        until("the delivery to fail again", async || {
            let url = format!("{}/api/deliveries/{id}", host.admin);
            let it: Value = http().get(url).send().await.unwrap().json().await.unwrap();
            (it["state"] == "dead" && it["attempts"] == attempts).then_some(())
        })
        .await;
    }
    assert_eq!(runs().await, before);
    assert_eq!(host.lines(&["canary rolled back"]), 0);
}

#[tokio::test]
async fn version_without_a_conclusive_dry_run_needs_a_trial() {
    let host = host("replay = 5").await;
    // Without recorded deliveries there is nothing to compare with, which is reported.
    host.save("module.wasm", small("two"));
    host.serves("Test", &small("two")).await;
    host.logged(&["WARN", "dry run skipped", &version(&small("two"))]).await;
    assert_eq!(ask(&host).await, "two");
    completed(&host).await;
    let reads = small_with("three", Behavior::Reads, 0);
    let reason = refused(&host, &reads, "dry runs has a result").await;
    assert!(reason.contains("modhost modules pin Test") && reason.contains("`canary`"), "{reason}");
    assert_eq!(host.module("Test").await["version"], version(&small("two")));
    // A canary can judge the version instead.
    host.save_settings(&settings("replay = 5, canary = \"50%\", for = \"1h\""));
    host.logged(&["canary started", "percent=50", &version(&reads)]).await;
}

/// A refused version is dry-run or compiled again only if the `swap` settings change. Other settings are saved many
/// times a day.
#[tokio::test]
async fn refused_version_is_retried_only_for_new_swap_settings_or_an_operator() {
    let host = host("replay = 5").await;
    assert_eq!(ask(&host).await, "one");
    completed(&host).await;
    let bad = small_with("bad", Behavior::Traps, 0);
    refused(&host, &bad, "it traps").await;
    let with = |swap: &str, lines: &str| {
        Settings::new().module_file("Test", "module.wasm", &format!("swap = {{ {swap} }}\n{lines}"))
    };
    let dry_run = || host.lines(&["dry run started", "module=Test"]);
    assert_eq!(dry_run(), 1);
    for (change, lines) in [
        ("a", "config = { greeting = \"Salut\" }"),
        ("b", "config = { greeting = \"Salut\" }\nlimits = { memory = \"20MiB\" }"),
        ("c", "http = [\"api.example.com\"]"),
        ("d", "retry = { attempts = 2 }"),
    ] {
        host.save_settings(&with("replay = 5", lines).server(&format!("apology = \"{change}\"")));
        until("the changed settings", async || {
            (host.lines(&["settings reloaded"]) == usize::from(change.as_bytes()[0] - b'a') + 1).then_some(())
        })
        .await;
        // Rewriting the same bytes doesn't count as a change.
        host.save("module.wasm", &bad);
    }
    let now = modules_json(&host, &["retry", "Test"]).await.remove(0);
    assert!(now["refused"].as_str().unwrap().contains("it traps"), "{now}");
    assert_eq!(dry_run(), 2, "not exactly one retry by an operator:\n{}", host.log());
    host.save_settings(&with("replay = 4", ""));
    until("the dry run under other swap settings", async || (dry_run() == 3).then_some(())).await;
    // The serving version can't be retried, and the error says what it is.
    let good = small("two");
    host.save("module.wasm", &good);
    host.serves("Test", &good).await;
    let again = modules(&host, &["retry", "Test"]).await;
    assert!(again.code == 1 && again.stderr.contains("serves already"), "{again:?}");
    assert_eq!(dry_run(), 4);
}

#[tokio::test]
async fn retries_a_rolled_back_version_on_request() {
    let host = host("canary = \"50%\", for = \"1h\"").await;
    let two = small("two");
    host.save("module.wasm", &two);
    host.logged(&["canary started", "percent=50"]).await;
    modules_json(&host, &["abort", "Test"]).await;
    // Other settings don't retry it.
    host.save_settings(&settings("canary = \"50%\", for = \"1h\"").server("apology = \"Nobody is in.\""));
    host.logged(&["settings reloaded"]).await;
    assert!(module_state(&host, "Test").await["canary"].is_null());
    let now = modules_json(&host, &["retry", "Test"]).await.remove(0);
    assert_eq!((&now["canary"]["version"], &now["held_back"]), (&json!(version(&two)), &Value::Null));
    let again = modules(&host, &["retry", "Test"]).await;
    assert!(again.code == 1 && again.stderr.contains("is on trial already"), "{again:?}");
    modules_json(&host, &["pin", "Test", &version(&small("one"))]).await;
    let pinned = modules(&host, &["retry", "Test"]).await;
    assert!(pinned.code == 1 && pinned.stderr.contains("is pinned to"), "{pinned:?}");
}

/// Admin operations don't wait for a version with endless dry runs, and cancel it.
#[tokio::test]
async fn admin_operations_cancel_dry_runs() {
    let limits = "swap = { replay = 5 }\nlimits = { cpu = \"1h\", timeout = \"1h\" }";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), small("one")).unwrap();
    let host = Settings::new().module_file("Test", "module.wasm", limits).start_in(folder).await;
    host.save("module.wasm", small("two"));
    host.serves("Test", &small("two")).await;
    assert_eq!(ask(&host).await, "two");
    completed(&host).await;
    let start_endless_dry_run = async |text: &str| {
        let endless = small_with(text, Behavior::Loops, 0);
        host.save("module.wasm", &endless);
        host.logged(&["dry run started", &version(&endless)]).await;
        version(&endless)
    };
    let endless = start_endless_dry_run("a").await;
    assert_eq!(modules_json(&host, &["pause", "Test"]).await[0]["paused"]["by"], "ann");
    modules_json(&host, &["resume", "Test"]).await;
    let now = modules_json(&host, &["rollback", "Test"]).await.remove(0);
    assert_eq!((&now["version"], &now["held_back"]["version"]), (&json!(version(&small("one"))), &json!(endless)));
    host.logged(&["dry run canceled", &endless]).await;
    let endless = start_endless_dry_run("b").await;
    assert_eq!(
        modules_json(&host, &["pin", "Test", &version(&small("two"))]).await[0]["version"],
        version(&small("two"))
    );
    host.logged(&["dry run canceled", &endless]).await;
    assert_eq!(ask(&host).await, "two");
    let history = modules_json(&host, &["history", "Test"]).await;
    assert!(
        history.iter().all(|entry| entry["role"] != "refused"),
        "a canceled version is in the history: {history:?}"
    );
}

#[tokio::test]
async fn canary_keeps_its_time_and_counts_across_restarts() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let swap = "swap = { canary = \"50%\", for = \"1h\" }";
    let settings = Settings::new().module_file("Test", file.to_str().unwrap(), swap);
    let settings = settings.args(&["--data-dir", data.path().join("data").to_str().unwrap()]);
    let mut host = settings.start().await;
    let bad = small_with("bad", Behavior::Fails, 0);
    fs::write(&file, &bad).unwrap();
    host.logged(&["canary started", "percent=50"]).await;
    let trial = async |host: &Host| module_state(host, "Test").await["canary"].clone();
    let counts =
        |trial: &Value| ["runs", "failed", "stable_runs", "stable_failed"].map(|key| trial[key].as_u64().unwrap());
    let left = |trial: &Value| trial["seconds_left"].as_u64().unwrap();
    // Three failures aren't enough evidence; the minimum is five.
    until("three failures of the canary", async || {
        chat(&host, "Test", "hello").await;
        (counts(&trial(&host).await)[1] >= 3).then_some(())
    })
    .await;
    let before = until("some time to pass", async || {
        let trial = trial(&host).await;
        (left(&trial) < 3597).then_some(trial)
    })
    .await;
    host.stop().await;

    let host = settings.start().await;
    let [runs, failed, ..] = counts(&before);
    host.logged(&["canary continues", "percent=50", &format!("{failed} of its {runs} deliveries failed")]).await;
    let after = trial(&host).await;
    assert_eq!(counts(&after), counts(&before));
    assert!(left(&after) <= left(&before), "{before} {after}");
    let mut sent = 0;
    until("the canary to be rolled back", async || {
        chat(&host, "Test", "hello").await;
        sent += 1;
        assert!(sent < 500, "the canary keeps failing");
        host.log().contains("canary rolled back").then_some(())
    })
    .await;
    // The next canary starts with counts of zero.
    fs::write(&file, small_with("worse", Behavior::Fails, 0)).unwrap();
    let next = until("the next canary", async || {
        let trial = trial(&host).await;
        (!trial.is_null()).then_some(trial)
    })
    .await;
    assert_eq!((counts(&next), left(&next) > left(&after)), ([0; 4], true));
}

#[tokio::test]
async fn canary_can_be_aborted_and_continues_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let settings =
        Settings::new().module_file("Test", file.to_str().unwrap(), "swap = { canary = \"99%\", for = \"1h\" }");
    let settings = settings.args(&["--data-dir", data.path().join("data").to_str().unwrap()]);
    let mut host = settings.start().await;
    assert_eq!(
        module_state(&host, "Test").await["canary"],
        Value::Null,
        "the first version has no predecessor to compare with"
    );
    fs::write(&file, small("two")).unwrap();
    host.logged(&["canary started", "percent=99"]).await;
    let since = module_state(&host, "Test").await["canary"]["since"].clone();
    host.stop().await;

    let host = settings.start().await;
    host.logged(&["canary continues", "percent=99", &version(&small("two"))]).await;
    let now = module_state(&host, "Test").await;
    assert_eq!((&now["version"], &now["canary"]["since"]), (&json!(version(&small("one"))), &since));
    // Nearly all deliveries go to the canary.
    until("an answer of the canary", async || (ask(&host).await == "two").then_some(())).await;

    let back = modules(&host, &["rollback", "Test"]).await;
    assert!(back.code == 1 && back.stderr.contains("is on trial; `modhost modules abort Test` ends that"), "{back:?}");
    let now = modules_json(&host, &["abort", "Test"]).await.remove(0);
    assert_eq!((&now["canary"], &now["held_back"]["why"]), (&Value::Null, &json!("ann ended its trial")));
    assert_eq!(ask(&host).await, "one");
    // Unpinning starts a trial of the file's version, as the settings require.
    assert_eq!(modules_json(&host, &["unpin", "Test"]).await[0]["canary"]["version"], version(&small("two")));
}
