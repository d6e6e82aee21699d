//! What is taken in while the host runs: components, modules.toml, `.env`. And what isn't, and why.

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

/// How many people talk to the module at once while it is replaced.
const PEOPLE: usize = 4;

/// How often it is replaced in each way.
const SWAPS: u8 = 8;

/// What the demo app replies to everything.
const DEMO_REPLY: &str = "Hello! What you wrote comes back in the next message.";

/// A host with one module whose component lies in its own folder; the name is the one the demo app answers to.
async fn swappable(bytes: &[u8]) -> Host {
    swappable_with(bytes, Settings::new().module_file("DemoApp", "module.wasm", "")).await
}

async fn swappable_with(bytes: &[u8], settings: Settings) -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), bytes).unwrap();
    settings.start_in(folder).await
}

/// Waits until the file of the module is refused for a reason with these words; answers with the reason.
async fn refused(host: &Host, words: &str) -> String {
    until(&format!("the file to be refused: {words}"), async || {
        let reason = host.module("DemoApp").await["refused"].as_str()?.to_owned();
        reason.contains(words).then_some(reason)
    })
    .await
}

#[tokio::test]
async fn a_swap_under_a_stream_of_events_loses_none() {
    // Two modules that answer differently, by turns; each file is another, though two and two do the same.
    let version = |number: u8| variant(if number.is_multiple_of(2) { "test_guest" } else { "demo_app" }, number);
    let host = swappable(&version(0)).await;
    let over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);

    let person = async || {
        while !over.load(Ordering::Relaxed) {
            let answer = chat(&host, "DemoApp", "reply as you are").await;
            let messages: Vec<_> = answer.chat["messages"].as_array().unwrap().iter().collect();
            // Either module's answer, and nothing of the other's.
            match answer.text() {
                "as you are" => assert_eq!(messages.len(), 2, "{messages:?}"),
                DEMO_REPLY => assert_eq!(messages.len(), 3, "{messages:?}"),
                other => panic!("no module says this: {other}"),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let swaps = async {
        for number in 1..=2 * SWAPS {
            let bytes = version(number);
            match number % 4 {
                // As deployments do it, and as compilers and `cp` do: the file is cut to nothing and then written.
                0 | 1 => host.save("module.wasm", &bytes),
                _ => fs::write(host.file("module.wasm"), &bytes).unwrap(),
            }
            host.serves("DemoApp", &bytes).await;
            // Each person may be waiting for an answer of the version before, so that one more is of this one.
            let before = answered.load(Ordering::Relaxed);
            until("an answer of this version", async || {
                (answered.load(Ordering::Relaxed) > before + PEOPLE).then_some(())
            })
            .await;
        }
        over.store(true, Ordering::Relaxed);
    };
    futures::join!(swaps, futures::future::join_all((0..PEOPLE).map(|_| person())));

    let deliveries: Value =
        http().get(format!("{}/local/deliveries", host.platform)).send().await.unwrap().json().await.unwrap();
    for delivery in deliveries.as_array().unwrap() {
        assert_eq!((&delivery["status"], &delivery["attempts"]), (&"delivered".into(), &1.into()), "{delivery}");
    }
    let log = host.log();
    assert!(!log.contains("delivery failed"), "a delivery failed:\n{log}");
    let known: BTreeSet<String> = (0..=2 * SWAPS).map(|number| ContentHash::of(&version(number)).to_string()).collect();
    let begun = log.lines().filter(|line| line.contains("attempt started"));
    let ran: BTreeSet<String> =
        begun.filter_map(|line| Some(line.split_once("version=")?.1.split(' ').next()?.to_owned())).collect();
    assert_eq!(ran, known, "every version served, and no other");
}

#[tokio::test]
async fn a_delivery_ends_on_the_version_it_began_with() {
    let gate = Gate::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), variant("test_guest", 1)).unwrap();
    let settings = Settings::new().module_file("DemoApp", "module.wasm", "").args(&["--completion-url", &gate.url()]);
    let host = settings.start_in(folder).await;
    let begun_before = say(&host.platform, "DemoApp", "complete what is it?").await;
    gate.reached_by(1).await;

    let next = variant("demo_app", 2);
    host.save("module.wasm", &next);
    host.serves("DemoApp", &next).await;
    assert_eq!(chat(&host, "DemoApp", "complete what is it?").await.text(), DEMO_REPLY);
    gate.open();
    assert_eq!(wait_for_answer(&host, &begun_before).await.text(), Gate::ANSWER);
}

#[tokio::test]
async fn a_file_that_cannot_serve_leaves_the_version_before() {
    let good = variant("test_guest", 1);
    let host = swappable(&good).await;
    let version = host.module("DemoApp").await["version"].clone();
    let core_module = wat::parse_str("(module)").unwrap();
    let other_world = wat::parse_str("(component)").unwrap();
    let files: [(&[u8], &str); 6] = [
        (&good[..good.len() / 2], "the file is cut short"),
        (b"", "the file is empty: its build failed, or is still writing it"),
        (&core_module, "the file is a core module, not a component"),
        (b"Hello, I am a module.\n", "the file is not WebAssembly"),
        (&other_world, "it doesn't export `handle: func(event: event) -> result<_, failure>`"),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff", "the file is "),
    ];
    for (bytes, words) in files {
        host.save("module.wasm", bytes);
        let reason = refused(&host, words).await;
        // One record, one line.
        let told = reason.replace('\n', "\\n");
        until(&format!("this in the log: {told}"), async || host.log().contains(&told).then_some(())).await;
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
async fn a_module_that_begins_without_a_good_file_serves_as_soon_as_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let host = Settings::new().module_file("DemoApp", "built/later/module.wasm", "").start_in(folder).await;
    refused(&host, "can't read").await;
    host.logged(&["WARN", "no version serves: the file does not exist", "module=DemoApp"]).await;
    assert_eq!(host.lines(&["ERROR"]), 0, "a module that isn't built yet is no error:\n{}", host.log());
    let asked = say(&host.platform, "DemoApp", "reply at last").await;
    fs::create_dir_all(host.file("built/later")).unwrap();
    fs::write(host.file("built/later/module.wasm"), variant("test_guest", 1)).unwrap();
    host.serves("DemoApp", &variant("test_guest", 1)).await;
    assert_eq!(wait_for_answer(&host, &asked).await.text(), "at last");
    assert_eq!(host.lines(&["failed", "module=DemoApp"]), 0, "no attempt was made:\n{}", host.log());
}

#[tokio::test]
async fn a_deleted_file_is_missed_and_its_successor_taken() {
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
async fn symbolic_links_are_followed() {
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

/// The settings of a host with the test guest, and further lines for its entry.
fn entry(lines: &str) -> Settings {
    Settings::test_guest(lines)
}

/// Saves other settings and waits until they are taken in.
async fn save(host: &Host, settings: &Settings) {
    let before = count(host, "settings reloaded");
    host.save_settings(settings);
    until("the settings to be taken in", async || (count(host, "settings reloaded") > before).then_some(())).await;
}

fn count(host: &Host, words: &str) -> usize {
    host.log().lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn changed_settings_of_a_module_are_taken_in() {
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
async fn modules_come_and_go_without_a_restart() {
    let host = entry("").start().await;
    save(&host, &entry("").module("DemoApp", "demo_app", "")).await;
    host.serves("DemoApp", &fs::read(component("demo_app")).unwrap()).await;
    until("somebody to talk to", async || knows(&host, "DemoApp").await.then_some(())).await;
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
async fn a_module_that_comes_under_a_stream_of_events_fails_none() {
    let wants = r#"events = ["unique.chat.user-message.created"]"#;
    let mut settings = Settings::test_guest(wants);
    let host = settings.start().await;
    let over = AtomicBool::new(false);
    let stream = async {
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
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
        over.store(true, Ordering::Relaxed);
    };
    let (events, ()) = futures::join!(stream, additions);
    until("every event to be logged", async || {
        (host.log().matches("completed module=Test ").count() == events).then_some(())
    })
    .await;
    assert_eq!(count(&host, "delivery failed"), 0, "{}", host.log());
}

/// Whether the local platform has somebody to talk to for a module.
async fn knows(host: &Host, module: &str) -> bool {
    let assistants: Value =
        http().get(format!("{}/local/assistants", host.platform)).send().await.unwrap().json().await.unwrap();
    assistants.as_array().unwrap().iter().any(|assistant| assistant["module"] == module)
}

#[tokio::test]
async fn broken_settings_are_refused_whole() {
    let host = entry("").start().await;
    let good = entry("").module("DemoApp", "demo_app", "");
    for (wrong, words) in [
        ("[server\n", "this is not TOML"),
        ("limits = { memory = \"much\" }\n", "memory"),
        ("colour = \"blue\"\n", "unknown setting `colour`"),
    ] {
        // The mistake stands below a module that is as it should be: not even that is taken in.
        let text = format!("{}{wrong}", good.text().trim_end().to_owned() + "\n");
        let line = text.lines().count();
        host.save("modules.toml", &text);
        host.logged(&["ERROR", "cannot reload the settings"]).await;
        until("the place of the mistake", async || {
            let place = format!("modules.toml:{line}:");
            host.log().lines().any(|it| it.contains(&place) && it.contains(words)).then_some(())
        })
        .await;
        assert!(host.module("DemoApp").await.is_null(), "a part of it was taken in");
        assert_eq!(chat(&host, "Test", "reply still here").await.text(), "still here");
    }
    fs::remove_file(host.file("modules.toml")).unwrap();
    host.logged(&["there is no file modules.toml"]).await;
    assert_eq!(chat(&host, "Test", "reply still here").await.text(), "still here");
    save(&host, &good).await;
    host.serves("DemoApp", &fs::read(component("demo_app")).unwrap()).await;
}

#[tokio::test]
async fn what_takes_a_restart_is_said() {
    let host = entry("").start().await;
    save(&host, &entry("").server("max_deliveries = 7\nconcurrency = 3\ndata_dir = \"elsewhere\"")).await;
    for name in ["max_deliveries", "concurrency", "data_dir"] {
        host.logged(&["WARN", "change in [server] takes effect after a restart", &format!("setting=\"{name}\"")]).await;
    }
    assert_eq!(count(&host, "takes effect after a restart"), 3, "the others have not changed");
}

#[tokio::test]
async fn the_sources_settings_are_taken_in() {
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
async fn a_secret_in_dot_env_is_replaced_while_the_host_runs() {
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

    // One that is missing is told, and what was good stays good.
    host.save(".env", "TEST_APP_ID=app\n");
    host.logged(&["cannot reload the settings"]).await;
    host.logged(&["the environment variable TEST_ENDPOINT_SECRET is not set"]).await;
    assert_eq!(status("usig_new").await, StatusCode::OK);
    assert!(!host.log().contains("usig_"), "a secret is in the log");
}
