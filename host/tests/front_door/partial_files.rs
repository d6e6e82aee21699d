//! Tests of settings and secrets that are written slowly in place, and of modules that are removed on purpose: entries
//! that disappear stay in effect for a grace period, and no acknowledged event is lost.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use super::harness::{
    Host, Settings, chat, chosen, modhost, modules, say, signed_post, signed_with, until, user_message, wait_for_answer,
};

/// A file that is being written in place.
struct SlowWriter {
    file: File,
    rest: Vec<u8>,
}

impl SlowWriter {
    /// Writes this many bytes of a text and keeps the file open.
    fn begin(path: &Path, text: &str, length: usize) -> Self {
        let (half, rest) = text.as_bytes().split_at(length);
        let mut file = OpenOptions::new().write(true).truncate(true).create(true).open(path).unwrap();
        file.write_all(half).unwrap();
        file.sync_all().unwrap();
        Self { file, rest: rest.to_vec() }
    }

    /// Writes the rest.
    fn finish(mut self) {
        self.file.write_all(&self.rest).unwrap();
    }
}

const NEVER: &str = "retry = { first = \"1h\", max = \"1h\" }";

/// Two modules; failed deliveries of the second wait for an hour.
fn two(server: &str) -> Settings {
    Settings::new().server(server).module("First", "test_guest", "").module("Second", "test_guest", NEVER)
}

/// The offset of the second module's table.
fn second(text: &str) -> usize {
    text.rfind("[[module]]").unwrap()
}

/// The deliveries in a state.
async fn deliveries(host: &Host, state: &str) -> Vec<Value> {
    let args = ["--admin", host.admin.as_str(), "--json", "--state", state];
    let ran = modhost(host.folder(), "deliveries", &args, &[]).await;
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn status(host: &Host, event: Value) -> StatusCode {
    signed_post(&host.webhook, event.to_string()).await.status()
}

#[tokio::test]
async fn partially_written_settings_lose_nothing() {
    let settings = two("");
    let host = settings.start().await;
    say(&host.platform, "Second", "retry 3600").await;
    let waiting = until("a delivery that waits", async || {
        deliveries(&host, "waiting").await.into_iter().find(|it| it["attempts"] == 1)
    })
    .await;

    let text = settings.text();
    let writer = SlowWriter::begin(&host.file("modules.toml"), &text, second(&text));
    host.logged(&["WARN", "removed from the settings", "Second"]).await;
    // Accepted as before, and delivered when the module is back.
    let chat_id = say(&host.platform, "Second", "reply was here").await;
    let event = until("the event to wait", async || {
        deliveries(&host, "waiting").await.into_iter().find(|it| it["id"] != waiting["id"])
    })
    .await;
    assert_eq!(event["attempts"], 0, "{event}");
    assert_eq!(chat(&host, "First", "reply meanwhile").await.text(), "meanwhile");
    writer.finish();
    host.logged(&["back in the settings", "Second"]).await;
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), "was here");
    assert_eq!(deliveries(&host, "waiting").await.len(), 1, "the waiting delivery still waits");
    assert!(deliveries(&host, "dead").await.is_empty());
    assert_eq!(host.lines(&["no such module wants the event"]), 0);
}

#[tokio::test]
async fn truncated_table_keeps_the_old_settings() {
    let listens = "events = [\"unique.chat.user-message.created\"]\nlimits = { memory = \"64MiB\" }\n";
    let settings = Settings::new().module("Listener", "test_guest", listens);
    let host = settings.start().await;
    let text = settings.text();
    // Without this line, the module would subscribe to other events.
    let writer = SlowWriter::begin(&host.file("modules.toml"), &text, text.rfind("events = ").unwrap());
    host.logged(&["WARN", "settings may be truncated", "Listener"]).await;
    assert_eq!(status(&host, user_message("evt_1", "hello")).await, StatusCode::OK);
    host.logged(&["completed", "module=Listener"]).await;
    assert_eq!(status(&host, chosen("evt_2", "Listener", "reply no")).await, StatusCode::OK);
    host.logged(&["no such module wants the event", "evt_2"]).await;
    writer.finish();
    host.logged(&["settings are complete again", "Listener"]).await;
}

#[tokio::test]
async fn removed_module_is_dropped_after_the_grace() {
    let host = two("removal_grace = \"3s\"").start().await;
    host.save_settings(&Settings::new().server("removal_grace = \"3s\"").module("First", "test_guest", ""));
    host.logged(&["WARN", "removed from the settings", "Second", "grace=3s"]).await;
    let chat_id = say(&host.platform, "Second", "reply was here").await;
    host.logged(&["dropped after the grace period", "Second"]).await;
    assert!(wait_for_answer(&host, &chat_id).await.text().starts_with("Sorry"));
    let dead = until("the delivery to end", async || deliveries(&host, "dead").await.into_iter().next()).await;
    assert!(dead["reason"].as_str().unwrap().contains("no longer in modules.toml"), "{dead}");
    assert!(host.module("Second").await.is_null());
    assert_eq!(status(&host, chosen("evt_late", "Second", "reply no")).await, StatusCode::OK);
    host.logged(&["no such module wants the event", "evt_late"]).await;
}

#[tokio::test]
async fn starting_with_partial_settings_loses_nothing() {
    let settings = two("");
    let host = settings.start().await;
    // The host saves its settings to disk.
    until("the settings to be saved", async || host.file(".modhost/settings.json").exists().then_some(())).await;
    say(&host.platform, "Second", "retry 3600").await;
    until("a delivery that waits", async || {
        deliveries(&host, "waiting").await.into_iter().find(|it| it["attempts"] == 1)
    })
    .await;
    let folder = host.kill();
    let text = settings.text();
    let writer = SlowWriter::begin(&folder.path().join("modules.toml"), &text, second(&text));
    let host = Host::dev(folder).await;
    host.logged(&["WARN", "removed from the settings", "Second"]).await;
    assert_eq!(status(&host, chosen("evt_early", "Second", "reply early")).await, StatusCode::OK);
    let waits = deliveries(&host, "waiting").await;
    assert_eq!(waits.len(), 2, "{waits:?}");
    writer.finish();
    host.logged(&["back in the settings", "Second"]).await;
    host.logged(&["attempt started", "evt_early"]).await;
    assert_eq!(host.lines(&["no such module wants the event"]), 0);
    assert!(
        deliveries(&host, "dead").await.iter().all(|it| it["event_id"] == "evt_early"),
        "a waiting delivery was ended"
    );
}

/// A data directory without saved settings, as older hosts left it.
#[tokio::test]
async fn deliveries_of_an_unknown_module_wait_for_the_grace() {
    let host = two("").start().await;
    assert_eq!(modules(&host, &["pause", "Second"]).await.code, 0);
    say(&host.platform, "Second", "reply was here").await;
    until("a delivery that is due", async || deliveries(&host, "waiting").await.into_iter().next()).await;
    until("the settings to be saved", async || host.file(".modhost/settings.json").exists().then_some(())).await;
    let folder = host.kill();
    fs::remove_file(folder.path().join(".modhost/settings.json")).unwrap();
    let first = |grace: &str| Settings::new().server(grace).module("First", "test_guest", "");
    let host = first("removal_grace = \"1h\"").start_in(folder).await;
    assert_eq!(chat(&host, "First", "reply hi").await.text(), "hi");
    assert_eq!(deliveries(&host, "waiting").await.len(), 1, "{}", host.log());
    assert!(deliveries(&host, "dead").await.is_empty());
    let host = first("removal_grace = \"1s\"").start_in(host.kill()).await;
    let dead = until("the delivery to end", async || deliveries(&host, "dead").await.into_iter().next()).await;
    assert!(dead["reason"].as_str().unwrap().contains("no longer in modules.toml"), "{dead}");
}

const REST: &str = "TEST_API_BASE=http://127.0.0.1:1\nTEST_APP_ID=app\nTEST_API_KEY=key\n";

/// Starts a host with a `.env` file and an unreachable platform.
async fn with_dot_env(server: &str, dot_env: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), Settings::new().server(server).text()).unwrap();
    fs::write(folder.path().join(".env"), dot_env).unwrap();
    Host::serve(folder, &[], None).await
}

/// The status of an event that was signed with this secret.
async fn signed(host: &Host, secret: &str) -> StatusCode {
    signed_with(secret, &host.webhook, user_message("evt_1", "hello").to_string()).await.status()
}

#[tokio::test]
async fn partially_written_secret_refuses_no_valid_event() {
    let host = with_dot_env("", &format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n")).await;
    assert_eq!(signed(&host, "usig_forged").await, StatusCode::BAD_REQUEST);

    // The same secret is rewritten, and the writer stalls in the middle.
    let text = format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n");
    let writer = SlowWriter::begin(&host.file(".env"), &text, text.len() - 4);
    host.logged(&["WARN", "value may be truncated", "env:TEST_ENDPOINT_SECRET"]).await;
    assert_eq!(signed(&host, "usig_forged").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(signed(&host, "usig_first").await, StatusCode::OK);
    assert_eq!(signed(&host, "usig_fi").await, StatusCode::SERVICE_UNAVAILABLE, "half of the secret was accepted");
    writer.finish();
    // Another secret is written in the same way.
    let text = format!("{REST}TEST_ENDPOINT_SECRET=other_second\n");
    let writer = SlowWriter::begin(&host.file(".env"), &text, text.len() - 4);
    until("half of the new secret to be in effect", async || {
        signed(&host, "other_sec").await.is_success().then_some(())
    })
    .await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::OK);
    let answer = signed_with("other_second", &host.webhook, user_message("evt_1", "hello").to_string()).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    writer.finish();
    until("the new secret", async || signed(&host, "other_second").await.is_success().then_some(())).await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::OK, "the old secret is still accepted");
    assert_eq!(signed(&host, "other_sec").await, StatusCode::SERVICE_UNAVAILABLE, "half of the secret isn't");
    assert!(!host.log().contains("usig_") && !host.log().contains("other_sec"), "the log contains a secret");
}

#[tokio::test]
async fn replaced_secret_expires_after_the_grace() {
    let host = with_dot_env("removal_grace = \"1s\"", &format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n")).await;
    host.save(".env", format!("{REST}TEST_ENDPOINT_SECRET=second\n"));
    until("the new secret", async || signed(&host, "second").await.is_success().then_some(())).await;
    until("the old secret to expire", async || {
        (signed(&host, "usig_first").await == StatusCode::BAD_REQUEST).then_some(())
    })
    .await;
    assert_eq!(signed(&host, "second").await, StatusCode::OK);
}

#[tokio::test]
async fn starting_with_a_partial_secret_refuses_no_valid_event() {
    let text = format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n");
    let host = with_dot_env("", &text).await;
    until("the settings to be saved", async || host.file(".modhost/settings.json").exists().then_some(())).await;
    let remembered = fs::read_to_string(host.file(".modhost/settings.json")).unwrap();
    assert!(!remembered.contains("usig_"), "a saved file contains a secret: {remembered}");
    let folder = host.kill();
    let writer = SlowWriter::begin(&folder.path().join(".env"), &text, text.len() - 4);
    let host = Host::serve(folder, &[], None).await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::SERVICE_UNAVAILABLE);
    writer.finish();
    until("the whole secret", async || signed(&host, "usig_first").await.is_success().then_some(())).await;
}

#[tokio::test]
async fn dot_env_does_not_expand_dollars() {
    let secret = "ab$defgh@jk";
    for written in [secret.to_owned(), format!("\"{secret}\""), format!("'{secret}'")] {
        let host = with_dot_env("", &format!("{REST}TEST_ENDPOINT_SECRET={written}\n")).await;
        assert_eq!(signed(&host, secret).await, StatusCode::OK, "{written}");
        assert_eq!(signed(&host, "ab@jk").await, StatusCode::BAD_REQUEST, "{written}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn special_files_do_not_block_the_host() {
    let mut host = with_dot_env("", &format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n")).await;
    for name in [".env", "modules.toml"] {
        let kept = fs::read(host.file(name)).unwrap();
        fs::remove_file(host.file(name)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(host.file(name)).status().unwrap().success());
        host.logged(&[&format!("{name} is not a regular file")]).await;
        assert_eq!(signed(&host, "usig_first").await, StatusCode::OK);
        fs::remove_file(host.file(name)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", host.file(name)).unwrap();
        until("the device to be refused", async || {
            (host.lines(&[&format!("{name} is not a regular file")]) > 1).then_some(())
        })
        .await;
        fs::remove_file(host.file(name)).unwrap();
        host.save(name, kept);
        let mended = if name == ".env" { 1 } else { 2 };
        until("the repaired file", async || (host.lines(&["settings are valid again"]) >= mended).then_some(())).await;
    }
    assert_eq!(host.health().await["status"], "ok");
    fs::remove_file(host.file(".env")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(host.file(".env")).status().unwrap().success());
    assert!(host.stop().await.success());
}

#[cfg(unix)]
#[tokio::test]
async fn commands_refuse_special_files() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("modules.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (command, args) in
        [("check", vec![]), ("routes", vec![]), ("serve", vec![]), ("send", vec!["--source", "unique", "event.json"])]
    {
        fs::write(folder.path().join("event.json"), "{}").unwrap();
        let ran = modhost(folder.path(), command, &args, &[]).await;
        assert_ne!(ran.code, 0, "{command}: {ran:?}");
        let output = format!("{}{}", ran.stdout, ran.stderr);
        assert!(output.contains("modules.toml is not a regular file"), "{command}: {output}");
    }
    fs::remove_file(&pipe).unwrap();
    // A folder is never a component: `check` names the line of the settings, and the host serves the other modules.
    fs::create_dir(folder.path().join("built.wasm")).unwrap();
    let settings = Settings::new().module_file("Test", "built.wasm", "").module("Other", "test_guest", "");
    fs::write(&pipe, settings.text()).unwrap();
    let line = settings.text().lines().position(|line| line.starts_with("component")).unwrap() + 1;
    let ran = modhost(folder.path(), "check", &[], &[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let expected = format!(
        "cannot serve Test: built.wasm: modules.toml:{line}:13: the component built.wasm is a folder, not a file"
    );
    assert!(ran.stdout.contains(&expected), "{}", ran.stdout);
    let host = settings.start_in(folder).await;
    host.logged(&["WARN", &format!("modules.toml:{line}:13: the component built.wasm is a folder, not a file")]).await;
    assert_eq!(chat(&host, "Other", "reply hi").await.text(), "hi");
}

/// Sends a signal.
#[cfg(unix)]
fn signal(host: &Host, name: &str) {
    let pid = host.process_id().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[cfg(unix)]
#[tokio::test]
async fn sighup_reloads() {
    let mut host = with_dot_env("", &format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n")).await;
    signal(&host, "-HUP");
    host.logged(&["reload requested"]).await;
    host.save_settings(&Settings::new().server("max_body = \"20B\""));
    signal(&host, "-HUP");
    host.logged(&["settings reloaded"]).await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::SERVICE_UNAVAILABLE, "the body to exceed the new limit");
    assert!(host.stop().await.success());
}

#[cfg(unix)]
#[tokio::test]
async fn second_signal_stops_immediately() {
    use std::os::unix::process::ExitStatusExt;

    for second in ["-TERM", "-INT"] {
        let mut host = Settings::test_guest("limits = { timeout = \"10m\" }").start().await;
        say(&host.platform, "Test", "sleep 300000").await;
        host.logged(&["attempt started"]).await;
        signal(&host, "-TERM");
        host.logged(&["stopping"]).await;
        signal(&host, second);
        let status = host.ended().await;
        host.logged(&["second stop signal, exiting immediately"]).await;
        let code = if second == "-TERM" { 128 + 15 } else { 128 + 2 };
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{}", host.log());
    }
}
