//! Tests of `wasi:keyvalue` through a real guest: operations, isolation, and limits.

use modhost_emulator as local;
use modhost_storage::keyvalue::{Bucket, KeyValue, Space, Sqlite};
use serde_json::{Value, json};

use super::harness::{
    Host, Settings, chat, component, http, modhost, say, signed_post, until, user_message, wait_for_answer,
};

/// The test guest's reply to a command.
async fn reply(host: &Host, command: &str) -> String {
    chat(host, "Test", command).await.text().to_owned()
}

/// Gives the guest a command that must fail; returns the reason in the log.
async fn refused(host: &Host, command: &str) -> String {
    let before = ended(host, "dead", 0).await.len();
    let chat_id = say(&host.platform, "Test", command).await;
    let answer = wait_for_answer(host, &chat_id).await;
    assert!(answer.text().starts_with("Sorry"), "{command}: {}", answer.text());
    ended(host, "dead", before + 1).await[0]["reason"].as_str().unwrap().to_owned()
}

/// The deliveries in a state, newest first, once there are this many: the answer is visible before the outcome is
/// recorded.
async fn ended(host: &Host, state: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} deliveries to be {state}"), async || {
        let all = api(host, &format!("deliveries?state={state}")).await["deliveries"].as_array().unwrap().clone();
        (all.len() >= count).then_some(all)
    })
    .await
}

/// The response of the admin API.
async fn api(host: &Host, path: &str) -> Value {
    http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap().json().await.unwrap()
}

/// The value under a key in a module's default bucket, as operators see it.
async fn stored(host: &Host, tenant: &str, module: &str, key: &str) -> Value {
    api(host, &format!("keyvalue/{tenant}/{module}/default/value?key={key}")).await["value"].clone()
}

#[tokio::test]
async fn large_value_is_stored_and_recorded_as_a_digest() {
    let host = Settings::test_guest("").start().await;
    assert_eq!(reply(&host, "kv-fill 500000 a").await, "set");
    let id = ended(&host, "completed", 1).await[0]["id"].as_str().unwrap().to_owned();
    let details = api(&host, &format!("deliveries/{id}")).await;
    let set = details["calls"].as_array().unwrap().iter().find(|call| call["import"] == "keyvalue.set").unwrap();
    assert_eq!((&set["arguments"]["bucket"], &set["arguments"]["entries"][0][0]), (&json!("default"), &json!("a")));
    let text = &set["arguments"]["entries"][0][1]["hex"]["modhost:text"];
    assert_eq!((text["bytes"].as_u64(), text["sha256"].as_str().unwrap().len()), (Some(1_000_000), 64), "{set}");
    assert!(set.to_string().len() < 1000, "{set}");
    let shown = modhost(host.folder(), "deliveries", &["show", &id, "--admin", &host.admin], &[]).await;
    assert!(shown.stdout.contains("… (976.6 KiB)"), "{}", shown.stdout);
    // The next attempt recognizes the call: it gets the recorded answer, and nothing is written again.
    let component = component("test_guest");
    let arguments = ["replay", &id, "--component", component.to_str().unwrap(), "--admin", &host.admin];
    let replayed = modhost(host.folder(), "deliveries", &arguments, &[]).await;
    assert!(replayed.stdout.contains("  same     keyvalue.set"), "{}", replayed.stdout);
    assert!(replayed.stdout.contains("the reply is the same"), "{}", replayed.stdout);
}

#[tokio::test]
async fn sets_reads_increments_and_swaps_values() {
    let host = Settings::test_guest("").start().await;
    let steps = [
        ("kv-get a", "nothing"),
        ("kv-exists a", "false"),
        ("kv-set a good morning", "set"),
        ("kv-get a", "good morning"),
        ("kv-exists a", "true"),
        ("kv-count n 5", "5"),
        ("kv-count n -7", "-2"),
        ("kv-get n", "-2"),
        ("kv-keys", r#"["a","n"]"#),
        ("kv-delete a", "deleted"),
        ("kv-delete a", "deleted"),
        ("kv-get a", "nothing"),
        ("kv-swap s - first", "true"),
        ("kv-swap s - second", "false"),
        ("kv-swap s first second", "true"),
        ("kv-swap s first third", "false"),
        ("kv-append s +more", "second+more"),
        (r#"kv-many {"x":"1","y":"2"}"#, r#"["2","1",null]"#),
        ("kv-delete-many x y z", "deleted"),
        ("kv-keys", r#"["n","s"]"#),
    ];
    for (command, expected) in steps {
        assert_eq!(reply(&host, command).await, expected, "{command}");
    }
    assert!(refused(&host, "kv-count s 1").await.contains("keyvalue.increment: invalid: the value of `s`"));
}

#[tokio::test]
async fn buckets_are_separate_and_the_unnamed_bucket_is_the_default() {
    let host = Settings::test_guest("").start().await;
    reply(&host, "kv-set a in-the-default").await;
    reply(&host, "kv-in other a in-the-other").await;
    assert_eq!(reply(&host, "kv-get a").await, "in-the-default");
    assert_eq!(reply(&host, "kv-from default a").await, "in-the-default");
    assert_eq!(reply(&host, "kv-from other a").await, "in-the-other");
    assert_eq!(reply(&host, "kv-from third a").await, "nothing");
}

#[tokio::test]
async fn lists_keys_in_pages() {
    let host = Settings::test_guest("").start().await;
    reply(&host, "kv-fill-keys 2500").await;
    let keys: Vec<String> = serde_json::from_str(&reply(&host, "kv-keys").await).unwrap();
    let expected: Vec<String> = (0..2500).map(|n| format!("key-{n:06}")).collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn isolates_modules_and_tenants() {
    let listens = r#"events = ["unique.chat.user-message.created"]"#;
    let host = Settings::new()
        .module("One", "test_guest", listens)
        .module("Two", "test_guest", &format!("{listens}\ntenants = [\"acme\"]"))
        .tenants(&[("acme", local::COMPANY_ID), ("rival", "company_rival")])
        .start()
        .await;
    for (id, company) in [("evt_1", local::COMPANY_ID), ("evt_2", "company_rival"), ("evt_3", "company_rival")] {
        let mut event = user_message(id, "hear kv-count-and hits|nothing");
        event["companyId"] = company.into();
        assert!(signed_post(&host.webhook, event.to_string()).await.status().is_success());
    }
    until("four deliveries to end", async || {
        (api(&host, "totals").await["deliveries"]["completed"] == 4).then_some(())
    })
    .await;
    let hits = async |tenant, module| stored(&host, tenant, module, "hits").await;
    assert_eq!(hits("acme", "One").await, "1");
    assert_eq!(hits("acme", "Two").await, "1");
    assert_eq!(hits("rival", "One").await, "2");
    assert_eq!(hits("rival", "Two").await, Value::Null);
}

#[tokio::test]
async fn refuses_values_above_the_quota_and_names_it() {
    let host = Settings::test_guest("limits = { keyvalue = \"64KiB\" }").start().await;
    assert_eq!(reply(&host, "kv-fill 60000 a").await, "set");
    let full = refused(&host, "kv-fill 10000 b").await;
    assert!(full.starts_with("keyvalue.set: invalid: cannot store 9.8 KiB more"), "{full}");
    assert!(full.contains("58.6 KiB of the 64.0 KiB that `limits.keyvalue` in modules.toml"), "{full}");
    // The refused value isn't stored; smaller values still fit, and deleting frees space.
    assert_eq!(reply(&host, "kv-exists b").await, "false");
    assert_eq!(reply(&host, "kv-fill 10 b").await, "set");
    assert_eq!(reply(&host, "kv-delete a").await, "deleted");
    assert_eq!(reply(&host, "kv-fill 60000 b").await, "set");

    let cases = [
        ("kv-fill 1048577 a", "keyvalue.set: invalid: the value for `a` has 1048577 bytes; the maximum is 1048576"),
        ("kv-long-key 1025", "keyvalue.set: invalid: a key has 1025 bytes; the maximum is 1024"),
        ("kv-buckets 101", "keyvalue.set: invalid: cannot create the bucket `bucket-99`"),
    ];
    for (command, expected) in cases {
        let reason = refused(&host, command).await;
        assert!(reason.starts_with(expected), "{command}: {reason}");
    }
    // A guest that leaks handles is ended; other modules aren't affected.
    let reason = refused(&host, "kv-handles 20000").await;
    assert!(reason.starts_with("limit reached: handles: it holds more than 10000 at once"), "{reason}");
    assert_eq!(reply(&host, "kv-long-key 1024").await, "set");
}

#[tokio::test]
async fn limits_the_keys_of_one_call() {
    let host = Settings::test_guest("").start().await;
    let object: serde_json::Map<String, Value> = (0..1001).map(|n| (format!("k{n}"), json!(""))).collect();
    let reason = refused(&host, &format!("kv-many {}", Value::Object(object))).await;
    assert!(reason.starts_with("keyvalue.set-many: invalid: one call names 1001 keys"), "{reason}");
    assert_eq!(reply(&host, "kv-keys").await, "[]");
}

#[tokio::test]
async fn refuses_to_load_a_keyvalue_module_without_quota() {
    let none = Settings::test_guest("limits = { keyvalue = 0 }");
    let host = none.start().await;
    let refused = host.logged(&["no version serves", "wasi:keyvalue/store@0.2.0-draft2"]).await;
    assert!(refused.contains("`limits.keyvalue` is 0") && refused.contains("modules.toml"), "{refused}");

    host.save_settings(&Settings::test_guest(""));
    host.serves("Test", &std::fs::read(component("test_guest")).unwrap()).await;
    assert_eq!(reply(&host, "kv-set a b").await, "set");

    // If the quota is removed at run time, the old settings keep serving, and the log names the reason.
    host.save_settings(&none);
    host.logged(&["the stable version stays", "`limits.keyvalue` is 0"]).await;
    assert_eq!(reply(&host, "kv-get a").await, "b");

    // A module that doesn't import keyvalue needs no quota.
    let other = Settings::new().module("DemoApp", "demo_app", "limits = { keyvalue = 0 }").start().await;
    assert!(chat(&other, "DemoApp", "good morning").await.text().starts_with("Hello!"));
}

#[tokio::test]
async fn retry_replays_an_increment() {
    let lines = "retry = { attempts = 3, first = \"10ms\", max = \"10ms\" }";
    let host = Settings::test_guest(lines).start().await;
    let chat_id = say(&host.platform, "Test", "kv-count-and hits|retry 0").await;
    wait_for_answer(&host, &chat_id).await;
    let dead = ended(&host, "dead", 1).await.remove(0);
    assert_eq!(dead["attempts"], 3, "{dead}");
    // Writes of a failed delivery stay.
    assert_eq!(stored(&host, "default", "Test", "hits").await, "1");

    // A manual retry replays the recorded increment; if the call log was deleted, it increments again.
    let id = dead["id"].as_str().unwrap().to_owned();
    for (args, attempts, hits) in [(vec!["retry", &id], 6, "1"), (vec!["retry", &id, "--fresh"], 9, "2")] {
        let ran = modhost(host.folder(), "deliveries", &[vec!["--admin", &host.admin], args].concat(), &[]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        until("the delivery to end again", async || {
            let dead = api(&host, "deliveries?state=dead").await;
            (dead["deliveries"][0]["attempts"] == attempts).then_some(())
        })
        .await;
        assert_eq!(stored(&host, "default", "Test", "hits").await, hits);
    }
}

#[tokio::test]
async fn dry_run_reads_the_call_log_and_writes_nothing() {
    // The recording module makes no keyvalue calls, so all of them are new in the dry run.
    let host = Settings::new().module("Test", "assistant", "").start().await;
    reply(&host, "kv-append a more").await;
    let other = ended(&host, "completed", 1).await[0]["id"].as_str().unwrap().to_owned();
    host.save_settings(&Settings::test_guest(""));
    host.serves("Test", &std::fs::read(component("test_guest")).unwrap()).await;
    reply(&host, "kv-set a once").await;
    reply(&host, "kv-count-and hits|kv-get a").await;
    let same = ended(&host, "completed", 3).await[0]["id"].as_str().unwrap().to_owned();

    let guest = component("test_guest");
    let dry_run = async |id: &str| {
        let args = ["replay", id, "--component", guest.to_str().unwrap(), "--admin", &host.admin];
        modhost(host.folder(), "deliveries", &args, &[]).await
    };
    let ran = dry_run(&same).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout.contains("same     keyvalue.increment") && ran.stdout.contains("same     keyvalue.get"),
        "{ran:?}"
    );
    let ran = dry_run(&other).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("+ added    keyvalue.cas.new"), "{ran:?}");
    assert!(ran.stdout.contains("a dry run has no value that was not recorded"), "{ran:?}");
    assert_eq!(stored(&host, "default", "Test", "a").await, "once");
    assert_eq!(stored(&host, "default", "Test", "hits").await, "1");
}

#[tokio::test]
async fn operators_can_read_values_of_a_removed_module() {
    let mut host = Settings::test_guest("").start().await;
    reply(&host, "kv-set a good morning").await;
    reply(&host, "kv-fill 3 b/c").await;
    reply(&host, "kv-in drafts/2026 a é").await;
    host.save_settings(&Settings::new());
    host.logged(&["settings reloaded"]).await;

    let buckets = api(&host, "keyvalue/default/Test").await;
    assert_eq!(
        buckets,
        json!({ "buckets": [
            { "name": "default", "keys": 2, "bytes": 19 },
            { "name": "drafts/2026", "keys": 1, "bytes": 3 },
        ]})
    );
    let page = api(&host, "keyvalue/default/Test/default?limit=1").await;
    assert_eq!(
        (&page["keys"][0]["key"], &page["keys"][0]["size"], &page["next"]),
        (&json!("a"), &json!(12), &json!("a"))
    );
    assert!(page["keys"][0]["changed_at"].as_str().is_some_and(|at| at.starts_with("20")), "{page}");
    let page = api(&host, "keyvalue/default/Test/default?after=a").await;
    assert_eq!((&page["keys"][0]["key"], &page["next"]), (&json!("b/c"), &Value::Null));
    assert_eq!(stored(&host, "default", "Test", "b/c").await, json!({ "hex": "ffffff" }));
    assert_eq!(api(&host, "keyvalue/default/Test/drafts%2F2026/value?key=a").await["value"], "é");
    assert_eq!(api(&host, "keyvalue/default/Nobody").await, json!({ "buckets": [] }));

    let get = async |path: &str| http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap();
    let missing = get("keyvalue/default/Test/default/value?key=x").await;
    assert_eq!(missing.status(), 404);
    assert!(missing.text().await.unwrap().contains("module Test has no value under `x` for default"));
    assert_eq!(get("keyvalue/default/Test/default?limit=0").await.status(), 400);
    assert_eq!(get("keyvalue/default/Test/default/value").await.status(), 400);

    // After the host has stopped, all values are in the file.
    host.stop().await;
    let store = Sqlite::open(host.file(".modhost")).await.unwrap();
    let default = Bucket::new(Space { tenant: "default".into(), module: "Test".into() }, String::new()).unwrap();
    let found = store.get(&default, vec!["a".into()]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().value.0, b"good morning");
}
