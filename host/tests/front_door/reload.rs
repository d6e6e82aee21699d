//! Tests of reloads: changes of components, modules.toml and `.env` that take effect, and those that are refused.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use modhost_storage::versions::ContentHash;
use reqwest::StatusCode;
use serde_json::Value;

use super::harness::{
    Gate, Host, Settings, chat, component, http, say, signed_post, signed_with, until, user_message, variant,
    wait_for_answer,
};

/// The number of users who write to the module while it is replaced.
const USERS: usize = 4;

/// The number of replacements in each way.
const SWAPS: u8 = 8;

/// The demo app's reply to every message.
const DEMO_REPLY: &str = "Hello! What you wrote comes back in the next message.";

/// Starts a host with one module whose component is in the host's folder, named as the demo app expects.
async fn swappable(bytes: &[u8]) -> Host {
    swappable_with(bytes, Settings::new().module_file("DemoApp", "module.wasm", "")).await
}

async fn swappable_with(bytes: &[u8], settings: Settings) -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), bytes).unwrap();
    settings.start_in(folder).await
}

/// Waits until the module's file is refused for a reason that contains these words, and returns the reason.
async fn refused(host: &Host, words: &str) -> String {
    until(&format!("the file to be refused: {words}"), async || {
        let reason = host.module("DemoApp").await["refused"].as_str()?.to_owned();
        reason.contains(words).then_some(reason)
    })
    .await
}

#[tokio::test]
async fn replacing_a_component_under_load_loses_no_event() {
    // Alternates between two modules with different answers; each file is a distinct version.
    let version = |number: u8| variant(if number.is_multiple_of(2) { "test_guest" } else { "demo_app" }, number);
    let host = swappable(&version(0)).await;
    let done = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);

    let person = async || {
        while !done.load(Ordering::Relaxed) {
            let answer = chat(&host, "DemoApp", "reply as you are").await;
            let messages: Vec<_> = answer.chat["messages"].as_array().unwrap().iter().collect();
            // The answer is that of one component, without any part of the other's.
            match answer.text() {
                "as you are" => assert_eq!(messages.len(), 2, "{messages:?}"),
                DEMO_REPLY => assert_eq!(messages.len(), 3, "{messages:?}"),
                other => panic!("unexpected answer: {other}"),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let swaps = async {
        for number in 1..=2 * SWAPS {
            let bytes = version(number);
            match number % 4 {
                // Atomic replacement as by deployments, and truncate-then-write as by compilers and `cp`.
                0 | 1 => host.save("module.wasm", &bytes),
                _ => fs::write(host.file("module.wasm"), &bytes).unwrap(),
            }
            host.serves("DemoApp", &bytes).await;
            // Each user may still be waiting for an answer of the previous version, so wait for one answer more.
            let before = answered.load(Ordering::Relaxed);
            until("an answer of this version", async || {
                (answered.load(Ordering::Relaxed) > before + USERS).then_some(())
            })
            .await;
        }
        done.store(true, Ordering::Relaxed);
    };
    futures::join!(swaps, futures::future::join_all((0..USERS).map(|_| person())));

    let deliveries: Value =
        http().get(format!("{}/local/deliveries", host.platform)).send().await.unwrap().json().await.unwrap();
    for delivery in deliveries.as_array().unwrap() {
        assert_eq!((&delivery["status"], &delivery["attempts"]), (&"delivered".into(), &1.into()), "{delivery}");
    }
    let log = host.log();
    assert!(!log.contains("delivery failed"), "a delivery failed:\n{log}");
    let known: BTreeSet<String> = (0..=2 * SWAPS).map(|number| ContentHash::of(&version(number)).to_string()).collect();
    let starts = log.lines().filter(|line| line.contains("attempt started"));
    let ran: BTreeSet<String> =
        starts.filter_map(|line| Some(line.split_once("version=")?.1.split(' ').next()?.to_owned())).collect();
    assert_eq!(ran, known, "every version served, and no other");
}

#[tokio::test]
async fn delivery_keeps_its_version_until_it_ends() {
    let gate = Gate::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), variant("test_guest", 1)).unwrap();
    let settings = Settings::new().module_file("DemoApp", "module.wasm", "").args(&["--completion-url", &gate.url()]);
    let host = settings.start_in(folder).await;
    let running_chat = say(&host.platform, "DemoApp", "complete what is it?").await;
    gate.reached_by(1).await;

    let next = variant("demo_app", 2);
    host.save("module.wasm", &next);
    host.serves("DemoApp", &next).await;
    assert_eq!(chat(&host, "DemoApp", "complete what is it?").await.text(), DEMO_REPLY);
    gate.open();
    assert_eq!(wait_for_answer(&host, &running_chat).await.text(), Gate::ANSWER);
}

#[tokio::test]
async fn refused_file_leaves_the_serving_version() {
    let good = variant("test_guest", 1);
    let host = swappable(&good).await;
    let version = host.module("DemoApp").await["version"].clone();
    let core_module = wat::parse_str("(module)").unwrap();
    let other_world = wat::parse_str("(component)").unwrap();
    let files: [(&[u8], &str); 6] = [
        (&good[..good.len() / 2], "the file is truncated"),
        (b"", "the file is empty: its build failed, or is still writing it"),
        (&core_module, "the file is a core module, not a component"),
        (b"Hello, I am a module.\n", "the file is not WebAssembly"),
        (&other_world, "it doesn't export `handle: func(event: event) -> result<_, failure>`"),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff", "the file is "),
    ];
    for (bytes, words) in files {
        host.save("module.wasm", bytes);
        let reason = refused(&host, words).await;
        // One record is one log line.
        let escaped = reason.replace('\n', "\\n");
        until(&format!("this in the log: {escaped}"), async || host.log().contains(&escaped).then_some(())).await;
        host.logged(&["ERROR", "the file cannot serve; the stable version stays", "module=DemoApp", "module.wasm"])
            .await;
        assert_eq!(host.module("DemoApp").await["version"], version);
        assert_eq!(chat(&host, "DemoApp", "reply still here").await.text(), "still here");
    }
    let next = variant("demo_app", 2);
    host.save("module.wasm", &next);
    host.serves("DemoApp", &next).await;
    assert_eq!(chat(&host, "DemoApp", "reply hi").await.text(), DEMO_REPLY);
}

#[tokio::test]
async fn serves_once_a_good_file_appears() {
    let folder = tempfile::tempdir().unwrap();
    let host = Settings::new().module_file("DemoApp", "built/later/module.wasm", "").start_in(folder).await;
    refused(&host, "can't read").await;
    host.logged(&["WARN", "no version serves: the file does not exist", "module=DemoApp"]).await;
    assert_eq!(host.lines(&["ERROR"]), 0, "a missing component was logged as an error:\n{}", host.log());
    let asked = say(&host.platform, "DemoApp", "reply at last").await;
    fs::create_dir_all(host.file("built/later")).unwrap();
    fs::write(host.file("built/later/module.wasm"), variant("test_guest", 1)).unwrap();
    host.serves("DemoApp", &variant("test_guest", 1)).await;
    assert_eq!(wait_for_answer(&host, &asked).await.text(), "at last");
    assert_eq!(host.lines(&["failed", "module=DemoApp"]), 0, "no attempt was made:\n{}", host.log());
}

#[tokio::test]
async fn reports_a_deleted_file_and_loads_its_successor() {
    let host = swappable(&variant("test_guest", 1)).await;
    fs::remove_file(host.file("module.wasm")).unwrap();
    refused(&host, "can't read").await;
    host.logged(&["ERROR", "the file cannot serve; the stable version stays", "can't read"]).await;
    assert_eq!(chat(&host, "DemoApp", "reply still here").await.text(), "still here");
    let next = variant("demo_app", 2);
    fs::write(host.file("module.wasm"), &next).unwrap();
    host.serves("DemoApp", &next).await;
    assert_eq!(chat(&host, "DemoApp", "reply hi").await.text(), DEMO_REPLY);
}

#[cfg(unix)]
#[tokio::test]
async fn follows_symbolic_links() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (release, built) in [(1, "test_guest"), (2, "demo_app")] {
        fs::create_dir(path(&format!("release-{release}"))).unwrap();
        fs::write(path(&format!("release-{release}/module.wasm")), variant(built, release)).unwrap();
    }
    symlink("release-1/module.wasm", path("module.wasm")).unwrap();
    symlink("release-1", path("current")).unwrap();
    let settings = Settings::new().module_file("Linked", "module.wasm", "").module_file(
        "InALinkedFolder",
        "current/module.wasm",
        "",
    );
    let host = settings.start_in(folder).await;
    let flip = |name: &str, to: &str| {
        symlink(to, host.file("flip")).unwrap();
        fs::rename(host.file("flip"), host.file(name)).unwrap();
    };
    flip("module.wasm", "release-2/module.wasm");
    flip("current", "release-2");
    for module in ["Linked", "InALinkedFolder"] {
        host.serves(module, &variant("demo_app", 2)).await;
    }
}

/// Settings with the test guest and additional lines for its entry.
fn entry(lines: &str) -> Settings {
    Settings::test_guest(lines)
}

/// Saves other settings and waits until they are applied.
async fn save(host: &Host, settings: &Settings) {
    let before = count(host, "settings reloaded");
    host.save_settings(settings);
    until("the settings to be applied", async || (count(host, "settings reloaded") > before).then_some(())).await;
}

fn count(host: &Host, words: &str) -> usize {
    host.log().lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn reloads_module_settings() {
    let host = entry("").start().await;
    assert!(chat(&host, "Test", "fail now").await.text().starts_with("Sorry, something went wrong"));
    assert_eq!(chat(&host, "Test", "config greeting").await.text(), "there is no setting greeting");
    assert_eq!(chat(&host, "Test", "allocate 32").await.text(), "took 32 MiB");

    let apology =
        "apology = \"Ask again tomorrow.\"\nlimits = { memory = \"16MiB\" }\nconfig = { greeting = \"Salut\" }";
    save(&host, &entry(apology)).await;
    host.logged(&["new settings in use", "module=Test"]).await;
    assert_eq!(chat(&host, "Test", "fail now").await.text(), "Ask again tomorrow.");
    assert_eq!(chat(&host, "Test", "config greeting").await.text(), "Salut");
    assert_eq!(chat(&host, "Test", "allocate 32").await.text(), "Ask again tomorrow.");
    host.logged(&["delivery failed", "limit reached"]).await;

    save(&host, &entry("").server(r#"apology = "Nobody is in.""#)).await;
    assert_eq!(chat(&host, "Test", "fail now").await.text(), "Nobody is in.");
    assert_eq!(chat(&host, "Test", "allocate 32").await.text(), "took 32 MiB");
}

#[tokio::test]
async fn adds_and_removes_modules_without_a_restart() {
    let host = entry("").start().await;
    save(&host, &entry("").module("DemoApp", "demo_app", "")).await;
    host.serves("DemoApp", &fs::read(component("demo_app")).unwrap()).await;
    until("the new assistant", async || knows(&host, "DemoApp").await.then_some(())).await;
    assert_eq!(chat(&host, "DemoApp", "hi").await.text(), DEMO_REPLY);
    assert_eq!(chat(&host, "Test", "reply hi").await.text(), "hi");

    save(&host, &Settings::new().server("removal_grace = \"0s\"").module("DemoApp", "demo_app", "")).await;
    assert!(host.module("Test").await.is_null());
    let event = super::harness::chosen("evt_gone", "Test", "reply hi").to_string();
    assert_eq!(signed_post(&host.webhook, event).await.status(), StatusCode::OK);
    host.logged(&["no such module wants the event", "evt_gone"]).await;
    assert_eq!(chat(&host, "DemoApp", "hi").await.text(), DEMO_REPLY);
}

#[tokio::test]
async fn adding_a_module_under_load_fails_no_event() {
    let wants = r#"events = ["unique.chat.user-message.created"]"#;
    let mut settings = Settings::test_guest(wants);
    let host = settings.start().await;
    let done = AtomicBool::new(false);
    let stream = async {
        let mut number = 0;
        while !done.load(Ordering::Relaxed) {
            number += 1;
            let event = user_message(&format!("evt_{number}"), "hello").to_string();
            assert_eq!(signed_post(&host.webhook, event).await.status(), StatusCode::OK);
        }
        number
    };
    let additions = async {
        for name in ["First", "Second", "Third"] {
            settings = settings.module(name, "test_guest", wants);
            save(&host, &settings).await;
            host.logged(&["completed", &format!("module={name}")]).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let (events, ()) = futures::join!(stream, additions);
    until("every event to be logged", async || {
        (host.log().matches("completed module=Test ").count() == events).then_some(())
    })
    .await;
    assert_eq!(count(&host, "delivery failed"), 0, "{}", host.log());
}

/// Reports whether the local platform has an assistant for a module.
async fn knows(host: &Host, module: &str) -> bool {
    let assistants: Value =
        http().get(format!("{}/local/assistants", host.platform)).send().await.unwrap().json().await.unwrap();
    assistants.as_array().unwrap().iter().any(|assistant| assistant["module"] == module)
}

#[tokio::test]
async fn invalid_settings_are_rejected_as_a_whole() {
    let host = entry("").start().await;
    let good = entry("").module("DemoApp", "demo_app", "");
    for (wrong, words) in [
        ("[server\n", "this is not TOML"),
        ("limits = { memory = \"much\" }\n", "memory"),
        ("colour = \"blue\"\n", "unknown setting `colour`"),
    ] {
        // The mistake is below a valid new module: not even that module is added.
        let text = format!("{}{wrong}", good.text().trim_end().to_owned() + "\n");
        let line = text.lines().count();
        host.save("modules.toml", &text);
        host.logged(&["ERROR", "cannot reload the settings"]).await;
        until("the location of the mistake", async || {
            let place = format!("modules.toml:{line}:");
            host.log().lines().any(|it| it.contains(&place) && it.contains(words)).then_some(())
        })
        .await;
        assert!(host.module("DemoApp").await.is_null(), "part of the invalid settings was applied");
        assert_eq!(chat(&host, "Test", "reply still here").await.text(), "still here");
    }
    fs::remove_file(host.file("modules.toml")).unwrap();
    host.logged(&["there is no file modules.toml"]).await;
    assert_eq!(chat(&host, "Test", "reply still here").await.text(), "still here");
    save(&host, &good).await;
    host.serves("DemoApp", &fs::read(component("demo_app")).unwrap()).await;
}

#[tokio::test]
async fn reports_changes_that_need_a_restart() {
    let host = entry("").start().await;
    save(&host, &entry("").server("max_deliveries = 7\nconcurrency = 3\ndata_dir = \"elsewhere\"")).await;
    for name in ["max_deliveries", "concurrency", "data_dir"] {
        host.logged(&["WARN", "change in [server] takes effect after a restart", &format!("setting=\"{name}\"")]).await;
    }
    assert_eq!(count(&host, "takes effect after a restart"), 3, "the others have not changed");
}

#[tokio::test]
async fn reloads_source_settings() {
    let host = entry("").start().await;
    let event = user_message("evt_1", "hello").to_string();
    save(&host, &entry("").server("max_body = \"20B\"")).await;
    assert_eq!(signed_post(&host.webhook, event.clone()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let elsewhere = entry("").text().replace("\"/webhook\"", "\"/elsewhere\"");
    host.save("modules.toml", &elsewhere);
    let elsewhere = host.webhook.replace("/webhook", "/elsewhere");
    until("the other path", async || signed_post(&elsewhere, event.clone()).await.status().is_success().then_some(()))
        .await;
    assert_eq!(signed_post(&host.webhook, event).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn reloads_a_secret_from_dot_env() {
    let folder = tempfile::tempdir().unwrap();
    let variables = |secret: &str| {
        let rest = "TEST_API_BASE=http://127.0.0.1:1\nTEST_APP_ID=app\nTEST_API_KEY=key\n";
        format!("TEST_ENDPOINT_SECRET={secret}\n{rest}")
    };
    let at_once = Settings::new().server("removal_grace = \"0s\"");
    fs::write(folder.path().join("modules.toml"), at_once.text()).unwrap();
    fs::write(folder.path().join(".env"), variables("usig_old")).unwrap();
    let host = Host::serve(folder, &[], None).await;
    let event = user_message("evt_1", "hello").to_string();
    let status = async |secret: &str| signed_with(secret, &host.webhook, event.clone()).await.status();
    assert_eq!(status("usig_old").await, StatusCode::OK);
    assert_eq!(status("usig_new").await, StatusCode::BAD_REQUEST);

    host.save(".env", variables("usig_new"));
    until("the new secret", async || status("usig_new").await.is_success().then_some(())).await;
    assert_eq!(status("usig_old").await, StatusCode::BAD_REQUEST);

    // A missing secret is reported, and the old one stays valid.
    host.save(".env", "TEST_APP_ID=app\n");
    host.logged(&["cannot reload the settings"]).await;
    host.logged(&["the environment variable TEST_ENDPOINT_SECRET is not set"]).await;
    assert_eq!(status("usig_new").await, StatusCode::OK);
    assert!(!host.log().contains("usig_"), "the log contains a secret");
}
