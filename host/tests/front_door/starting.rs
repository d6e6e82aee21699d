//! Tests of startup: a module that is slow to compile blocks only its own deliveries.

use std::fs;
use std::path::Path;

use reqwest::StatusCode;
use serde_json::Value;

use super::harness::components::compiles_for_long;
use super::harness::{
    Behavior, Host, Settings, chat, chosen, component, http, module_state, modules, say, signed_post, small,
    small_with, until, variant, wait_for_answer,
};

/// Settings with the test guest, and with a module whose component compiles for as long as the test runs.
fn with_slow(lines: &str) -> Settings {
    patient(Settings::test_guest(lines)).module_file("Slow", "slow.wasm", "")
}

fn patient(settings: Settings) -> Settings {
    settings.server(r#"compiler = { timeout = "1h", memory = "8GiB" }"#)
}

/// The deliveries of a module.
async fn deliveries(host: &Host, module: &str) -> Vec<Value> {
    let url = format!("{}/api/deliveries?module={module}", host.admin);
    let answer: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    answer["deliveries"].as_array().unwrap().clone()
}

/// Waits until the only delivery of a module is in a state after this many attempts.
async fn delivery_is(host: &Host, module: &str, state: &str, attempts: u32) {
    until(&format!("a delivery to {module} that is {state}"), async || {
        let all = deliveries(host, module).await;
        assert!(all.len() <= 1, "{all:?}");
        let delivery = all.first()?;
        (delivery["state"] == state && delivery["attempts"] == attempts).then_some(())
    })
    .await;
}

/// Writes to a module as soon as the local platform lists it; returns the chat's id.
async fn say_to(host: &Host, module: &str, text: &str) -> String {
    until(&format!("an assistant for {module}"), async || {
        let url = format!("{}/local/assistants", host.platform);
        let assistants: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        assistants.as_array().unwrap().iter().any(|assistant| assistant["module"] == module).then_some(())
    })
    .await;
    say(&host.platform, module, text).await
}

#[tokio::test]
async fn slow_component_does_not_block_other_changes() {
    let host = patient(Settings::test_guest("")).start().await;
    host.save("slow.wasm", compiles_for_long());
    let settings = with_slow(r#"config = { greeting = "Salut" }"#).module("DemoApp", "demo_app", "");
    host.save_settings(&settings.server(r#"apology = "Nobody is in.""#));
    host.logged(&["settings reloaded"]).await;

    // The existing module has its new settings, and the new module serves.
    assert_eq!(chat(&host, "Test", "config greeting").await.text(), "Salut");
    assert_eq!(chat(&host, "Test", "fail now").await.text(), "Nobody is in.");
    host.serves("DemoApp", &fs::read(component("demo_app")).unwrap()).await;
    let slow = host.module("Slow").await;
    assert!(slow["coming_up"] == true && slow["version"].is_null() && slow["refused"].is_null(), "{slow}");
    let table = modules(&host, &[]).await;
    assert!(table.stdout.contains("coming up; its deliveries wait"), "{table:?}");
    assert!(modules(&host, &["show", "Slow"]).await.stdout.contains("is coming up; its deliveries wait"));

    // Deliveries of the slow module wait; those of other modules don't.
    let chat_id = say_to(&host, "Slow", "reply at last").await;
    delivery_is(&host, "Slow", "waiting", 0).await;
    let nobodys = chosen("evt_1", "Nobody", "reply hi").to_string();
    assert_eq!(signed_post(&host.webhook, nobodys).await.status(), StatusCode::OK);
    host.logged(&["no such module wants the event", "evt_1"]).await;
    assert_eq!(chat(&host, "Test", "reply still here").await.text(), "still here");
    delivery_is(&host, "Slow", "waiting", 0).await;

    // A new file takes effect at once: the running compile is canceled.
    let better = variant("test_guest", 1);
    host.save("slow.wasm", &better);
    host.serves("Slow", &better).await;
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), "at last");
    delivery_is(&host, "Slow", "completed", 1).await;
    assert_eq!(module_state(&host, "Slow").await["coming_up"], false);
}

#[tokio::test]
async fn listens_before_all_modules_are_ready() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("slow.wasm"), compiles_for_long()).unwrap();
    let settings = with_slow("").at_once();
    let host = settings.start_in(folder).await;
    let summary_lines = ["module    Slow  coming up; its deliveries wait", "module    Test  "];
    assert!(summary_lines.iter().all(|line| host.output().contains(line)), "{}", host.output());
    let health = http().get(host.webhook.replace("/webhook", "/health")).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
    let chat_id = say(&host.platform, "Slow", "reply at last").await;
    delivery_is(&host, "Slow", "waiting", 0).await;

    // The delivery waits in the journal.
    let host = settings.start_in(host.kill()).await;
    assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
    assert_eq!(host.module("Slow").await["coming_up"], true);
    delivery_is(&host, "Slow", "waiting", 0).await;
    host.save("slow.wasm", variant("test_guest", 1));
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), "at last");
    delivery_is(&host, "Slow", "completed", 1).await;
}

/// The content of a component's path at startup.
enum FileState {
    Nothing,
    NoFolder,
    Bytes(Vec<u8>),
    /// A component that is refused under these additional lines of the module's entry.
    Refused(Vec<u8>, &'static str),
    Folder,
    #[cfg(unix)]
    LinkLoop,
}

impl FileState {
    fn put(&self, at: &Path) {
        let folder = || fs::create_dir_all(at.parent().unwrap()).unwrap();
        match self {
            Self::NoFolder => {}
            Self::Nothing => folder(),
            Self::Bytes(bytes) | Self::Refused(bytes, _) => {
                folder();
                fs::write(at, bytes).unwrap();
            }
            Self::Folder => fs::create_dir_all(at).unwrap(),
            #[cfg(unix)]
            Self::LinkLoop => {
                folder();
                std::os::unix::fs::symlink(at, at).unwrap();
            }
        }
    }

    fn remove(&self, at: &Path) {
        match self {
            Self::Folder => fs::remove_dir(at).unwrap(),
            _ => drop(fs::remove_file(at)),
        }
    }
}

/// Events for a module without a version have been acknowledged. Whatever is wrong with the component, their deliveries
/// wait for a good one and then complete in their first attempt.
#[tokio::test]
async fn acknowledged_events_wait_for_a_good_component() {
    let good = variant("test_guest", 1);
    let cases = [
        ("nothing", FileState::Nothing, "there is no such file"),
        ("nofolder", FileState::NoFolder, "there is no such file"),
        ("empty", FileState::Bytes(Vec::new()), "empty"),
        ("half", FileState::Bytes(good[..good.len() / 2].to_vec()), "the file is truncated"),
        ("text", FileState::Bytes(b"<html>".to_vec()), "not WebAssembly"),
        ("folder", FileState::Folder, "it is a folder"),
        (
            "large",
            FileState::Refused(small_with("x", Behavior::Replies(1), 2 << 20), "limits = { memory = \"1MiB\" }"),
            "memory",
        ),
        #[cfg(unix)]
        ("loop", FileState::LinkLoop, "symbolic link"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("built/{name}/module.wasm");
    // A single attempt: if the host used it up without a component, the delivery would be dead.
    let settings = |large: &str| {
        cases.iter().fold(Settings::test_guest(""), |settings, (name, file_state, _)| {
            let lines = if matches!(file_state, FileState::Refused(..)) { large } else { "" };
            settings.module_file(name, &at(name), &format!("retry = {{ attempts = 1 }}\n{lines}"))
        })
    };
    let large = cases
        .iter()
        .find_map(|(_, file_state, _)| if let FileState::Refused(_, lines) = file_state { Some(*lines) } else { None });
    for (name, file_state, _) in &cases {
        file_state.put(&folder.path().join(at(name)));
    }
    let host = settings(large.unwrap()).start_in(folder).await;
    let mut chat_ids = Vec::new();
    for (name, _, words) in &cases {
        let waits = module_state(&host, name).await;
        let reason = waits["waiting"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(words), "{name}: {waits}");
        chat_ids.push(say_to(&host, name, "reply at last").await);
    }
    assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
    for (name, ..) in &cases {
        delivery_is(&host, name, "waiting", 0).await;
    }
    let metrics = http().get(format!("{}/metrics", host.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"modhost_module_serves{module="nothing"} 0"#), "{metrics}");
    let table = modules(&host, &[]).await;
    assert!(table.stdout.contains("no version serves; its deliveries wait"), "{table:?}");

    for ((name, file_state, _), chat_id) in cases.iter().zip(&chat_ids) {
        let file = host.file(&at(name));
        match file_state {
            // The reason for the refusal is in the settings, not in the file.
            FileState::Refused(..) => host.save_settings(&settings("")),
            _ => {
                file_state.remove(&file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                host.save(&at(name), &good);
            }
        }
        let answer = wait_for_answer(&host, chat_id).await;
        let words = if matches!(file_state, FileState::Refused(..)) { "x" } else { "at last" };
        assert_eq!(answer.text(), words, "{name}");
        delivery_is(&host, name, "completed", 1).await;
        assert!(module_state(&host, name).await["waiting"].is_null());
    }
}

#[tokio::test]
async fn acknowledged_events_wait_when_compiling_fails() {
    let settings = Settings::new().server(r#"compiler = { timeout = "2s" }"#);
    let settings = settings.module_file("Slow", "slow.wasm", "retry = { attempts = 1 }");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("slow.wasm"), compiles_for_long()).unwrap();
    let host = settings.start_in(folder).await;
    let slow = host.module("Slow").await;
    assert!(slow["refused"].as_str().unwrap().contains("compiling it took longer than 2s"), "{slow}");
    let chat_id = say(&host.platform, "Slow", "who are you?").await;
    delivery_is(&host, "Slow", "waiting", 0).await;
    host.save("slow.wasm", small("at last"));
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), "at last");
    delivery_is(&host, "Slow", "completed", 1).await;
}

/// The host can't compile temporarily, e.g. because the disk is full. It must retry without a change of the file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn retries_a_failed_compile_automatically() {
    let folder = tempfile::tempdir().unwrap();
    let variables =
        [("ENDPOINT_SECRET", "usig_1"), ("API_BASE", "http://127.0.0.1:1"), ("APP_ID", "app"), ("API_KEY", "key")];
    let variables = variables.map(|(name, value)| format!("TEST_{name}={value}\n"));
    fs::write(folder.path().join(".env"), variables.concat()).unwrap();
    // A restricted host couldn't use a folder that is created later.
    let settings = Settings::new().server("sandbox = \"off\"").module_file("Test", "module.wasm", "");
    fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
    fs::write(folder.path().join("module.wasm"), small("here")).unwrap();
    // Neither the cache folder nor the system's temporary folder is writable.
    fs::create_dir(folder.path().join(".modhost")).unwrap();
    fs::write(folder.path().join(".modhost/components"), "").unwrap();
    let nowhere = folder.path().join("tmp");
    let host = Host::serve(folder, &[("TMPDIR", nowhere.to_str().unwrap())], None).await;
    let reason = host.module("Test").await["refused"].as_str().unwrap().to_owned();
    assert!(reason.contains("it can't write its output"), "{reason}");
    fs::create_dir(&nowhere).unwrap();
    host.serves("Test", &small("here")).await;
    assert_eq!(host.lines(&["no version serves"]), 1, "not reported exactly once:\n{}", host.log());
}

#[tokio::test]
async fn waiting_deliveries_can_be_dropped_and_end_with_their_module() {
    let settings = Settings::test_guest("").module_file("Later", "later.wasm", "");
    let settings = settings.module_file("Never", "never.wasm", "");
    let host = settings.start().await;
    let [dropped, ended] = [say_to(&host, "Later", "hello").await, say_to(&host, "Never", "hello").await];
    for module in ["Later", "Never"] {
        delivery_is(&host, module, "waiting", 0).await;
    }
    let id = deliveries(&host, "Later").await[0]["id"].as_str().unwrap().to_owned();
    let ran = super::harness::modhost(host.folder(), "deliveries", &["drop", &id, "--admin", &host.admin], &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(wait_for_answer(&host, &dropped).await.text().starts_with("Sorry"));
    delivery_is(&host, "Later", "dropped", 0).await;
    host.save_settings(&Settings::test_guest(""));
    assert!(wait_for_answer(&host, &ended).await.text().starts_with("Sorry"));
    until("the delivery to end after its module was removed", async || {
        (deliveries(&host, "Never").await[0]["state"] == "dead").then_some(())
    })
    .await;
}
