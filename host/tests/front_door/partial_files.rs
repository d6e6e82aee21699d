//! Settings and secrets that are written in place by somebody slow, and what is taken out on purpose: what disappears stays
//! for a while, and nothing that was acknowledged is lost.

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
struct Slow {
    file: File,
    rest: Vec<u8>,
}

impl Slow {
    /// Writes so many bytes of a text, and keeps the file open.
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

/// Two modules; what fails on the second waits for an hour.
fn two(server: &str) -> Settings {
    Settings::new().server(server).module("First", "test_guest", "").module("Second", "test_guest", NEVER)
}

/// Where the second module begins.
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
async fn a_slow_writer_loses_nothing() {
    let settings = two("");
    let host = settings.start().await;
    say(&host.platform, "Second", "retry 3600").await;
    let waiting = until("a delivery that waits", async || {
        deliveries(&host, "waiting").await.into_iter().find(|it| it["attempts"] == 1)
    })
    .await;

    let text = settings.text();
    let slow = Slow::begin(&host.file("modules.toml"), &text, second(&text));
    host.logged(&["WARN", "removed from the settings", "Second"]).await;
    // Taken as ever, and done when the module is back.
    let asked = say(&host.platform, "Second", "reply was here").await;
    let event = until("the event to wait", async || {
        deliveries(&host, "waiting").await.into_iter().find(|it| it["id"] != waiting["id"])
    })
    .await;
    assert_eq!(event["attempts"], 0, "{event}");
    assert_eq!(chat(&host, "First", "reply meanwhile").await.text(), "meanwhile");
    slow.finish();
    host.logged(&["back in the settings", "Second"]).await;
    assert_eq!(wait_for_answer(&host, &asked).await.text(), "was here");
    assert_eq!(deliveries(&host, "waiting").await.len(), 1, "what waited goes on waiting");
    assert!(deliveries(&host, "dead").await.is_empty());
    assert_eq!(host.lines(&["no such module wants the event"]), 0);
}

#[tokio::test]
async fn a_table_that_is_cut_stays_as_it_was() {
    let listens = "events = [\"unique.chat.user-message.created\"]\nlimits = { memory = \"64MiB\" }\n";
    let settings = Settings::new().module("Listener", "test_guest", listens);
    let host = settings.start().await;
    let text = settings.text();
    // Without the line, it would want other events.
    let slow = Slow::begin(&host.file("modules.toml"), &text, text.rfind("events = ").unwrap());
    host.logged(&["WARN", "settings may be truncated", "Listener"]).await;
    assert_eq!(status(&host, user_message("evt_1", "hello")).await, StatusCode::OK);
    host.logged(&["completed", "module=Listener"]).await;
    assert_eq!(status(&host, chosen("evt_2", "Listener", "reply no")).await, StatusCode::OK);
    host.logged(&["no such module wants the event", "evt_2"]).await;
    slow.finish();
    host.logged(&["settings are complete again", "Listener"]).await;
}

#[tokio::test]
async fn what_stays_away_is_dropped_by_itself() {
    let host = two("removal_grace = \"3s\"").start().await;
    host.save_settings(&Settings::new().server("removal_grace = \"3s\"").module("First", "test_guest", ""));
    host.logged(&["WARN", "removed from the settings", "Second", "grace=3s"]).await;
    let asked = say(&host.platform, "Second", "reply was here").await;
    host.logged(&["dropped after the grace period", "Second"]).await;
    assert!(wait_for_answer(&host, &asked).await.text().starts_with("Sorry"));
    let dead = until("the delivery to end", async || deliveries(&host, "dead").await.into_iter().next()).await;
    assert!(dead["reason"].as_str().unwrap().contains("no longer in modules.toml"), "{dead}");
    assert!(host.module("Second").await.is_null());
    assert_eq!(status(&host, chosen("evt_late", "Second", "reply no")).await, StatusCode::OK);
    host.logged(&["no such module wants the event", "evt_late"]).await;
}

#[tokio::test]
async fn a_host_that_starts_on_half_a_file_loses_nothing() {
    let settings = two("");
    let host = settings.start().await;
    // What it knows of its settings is on disk.
    until("the settings to be remembered", async || host.file(".modhost/settings.json").exists().then_some(())).await;
    say(&host.platform, "Second", "retry 3600").await;
    until("a delivery that waits", async || {
        deliveries(&host, "waiting").await.into_iter().find(|it| it["attempts"] == 1)
    })
    .await;
    let folder = host.kill();
    let text = settings.text();
    let slow = Slow::begin(&folder.path().join("modules.toml"), &text, second(&text));
    let host = Host::dev(folder).await;
    host.logged(&["WARN", "removed from the settings", "Second"]).await;
    assert_eq!(status(&host, chosen("evt_early", "Second", "reply early")).await, StatusCode::OK);
    let waits = deliveries(&host, "waiting").await;
    assert_eq!(waits.len(), 2, "{waits:?}");
    slow.finish();
    host.logged(&["back in the settings", "Second"]).await;
    host.logged(&["attempt started", "evt_early"]).await;
    assert_eq!(host.lines(&["no such module wants the event"]), 0);
    assert!(deliveries(&host, "dead").await.iter().all(|it| it["event_id"] == "evt_early"), "nothing that waited");
}

/// The data directory of a host that remembered nothing of its settings: an older one's.
#[tokio::test]
async fn what_waits_for_a_module_nobody_knows_waits_for_the_grace() {
    let host = two("").start().await;
    assert_eq!(modules(&host, &["pause", "Second"]).await.code, 0);
    say(&host.platform, "Second", "reply was here").await;
    until("a delivery that is due", async || deliveries(&host, "waiting").await.into_iter().next()).await;
    until("the settings to be remembered", async || host.file(".modhost/settings.json").exists().then_some(())).await;
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

/// A host with `.env`, for a platform that isn't there.
async fn with_dot_env(server: &str, dot_env: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), Settings::new().server(server).text()).unwrap();
    fs::write(folder.path().join(".env"), dot_env).unwrap();
    Host::serve(folder, &[], None).await
}

/// What is answered to an event that this secret signed.
async fn signed(host: &Host, secret: &str) -> StatusCode {
    signed_with(secret, &host.webhook, user_message("evt_1", "hello").to_string()).await.status()
}

#[tokio::test]
async fn half_a_secret_expires_no_endpoint() {
    let host = with_dot_env("", &format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n")).await;
    assert_eq!(signed(&host, "usig_forged").await, StatusCode::BAD_REQUEST);

    // The old one is written anew, and the writer stalls within it.
    let text = format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n");
    let slow = Slow::begin(&host.file(".env"), &text, text.len() - 4);
    host.logged(&["WARN", "value may be truncated", "env:TEST_ENDPOINT_SECRET"]).await;
    assert_eq!(signed(&host, "usig_forged").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(signed(&host, "usig_first").await, StatusCode::OK);
    assert_eq!(signed(&host, "usig_fi").await, StatusCode::SERVICE_UNAVAILABLE, "half of it signs nothing");
    slow.finish();
    // Another one, in the same way.
    let text = format!("{REST}TEST_ENDPOINT_SECRET=other_second\n");
    let slow = Slow::begin(&host.file(".env"), &text, text.len() - 4);
    until("half of the new one to be in force", async || signed(&host, "other_sec").await.is_success().then_some(()))
        .await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::OK);
    let answer = signed_with("other_second", &host.webhook, user_message("evt_1", "hello").to_string()).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    slow.finish();
    until("the new secret", async || signed(&host, "other_second").await.is_success().then_some(())).await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::OK, "the old one is still taken");
    assert_eq!(signed(&host, "other_sec").await, StatusCode::SERVICE_UNAVAILABLE, "and half of one is not");
    assert!(!host.log().contains("usig_") && !host.log().contains("other_sec"), "a secret is in the log");
}

#[tokio::test]
async fn a_replaced_secret_ends_with_the_grace() {
    let host = with_dot_env("removal_grace = \"1s\"", &format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n")).await;
    host.save(".env", format!("{REST}TEST_ENDPOINT_SECRET=second\n"));
    until("the new secret", async || signed(&host, "second").await.is_success().then_some(())).await;
    until("the old one to end", async || (signed(&host, "usig_first").await == StatusCode::BAD_REQUEST).then_some(()))
        .await;
    assert_eq!(signed(&host, "second").await, StatusCode::OK);
}

#[tokio::test]
async fn a_host_that_starts_on_half_a_secret_expires_no_endpoint() {
    let text = format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n");
    let host = with_dot_env("", &text).await;
    until("the settings to be remembered", async || host.file(".modhost/settings.json").exists().then_some(())).await;
    let remembered = fs::read_to_string(host.file(".modhost/settings.json")).unwrap();
    assert!(!remembered.contains("usig_"), "a secret is on disk: {remembered}");
    let folder = host.kill();
    let slow = Slow::begin(&folder.path().join(".env"), &text, text.len() - 4);
    let host = Host::serve(folder, &[], None).await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::SERVICE_UNAVAILABLE);
    slow.finish();
    until("the whole secret", async || signed(&host, "usig_first").await.is_success().then_some(())).await;
}

#[tokio::test]
async fn a_dollar_in_dot_env_is_a_dollar() {
    let secret = "ab$defgh@jk";
    for written in [secret.to_owned(), format!("\"{secret}\""), format!("'{secret}'")] {
        let host = with_dot_env("", &format!("{REST}TEST_ENDPOINT_SECRET={written}\n")).await;
        assert_eq!(signed(&host, secret).await, StatusCode::OK, "{written}");
        assert_eq!(signed(&host, "ab@jk").await, StatusCode::BAD_REQUEST, "{written}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_file_hangs_nobody() {
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
        until("the mended file", async || (host.lines(&["settings are valid again"]) >= mended).then_some(())).await;
    }
    assert_eq!(host.health().await["status"], "ok");
    fs::remove_file(host.file(".env")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(host.file(".env")).status().unwrap().success());
    assert!(host.stop().await.success());
}

#[cfg(unix)]
#[tokio::test]
async fn commands_refuse_what_is_no_file() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("modules.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (command, args) in
        [("check", vec![]), ("routes", vec![]), ("serve", vec![]), ("send", vec!["--source", "unique", "event.json"])]
    {
        fs::write(folder.path().join("event.json"), "{}").unwrap();
        let ran = modhost(folder.path(), command, &args, &[]).await;
        assert_ne!(ran.code, 0, "{command}: {ran:?}");
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(told.contains("modules.toml is not a regular file"), "{command}: {told}");
    }
    fs::remove_file(&pipe).unwrap();
    // A folder never becomes a component: `check` says where it is named, and so does a host, which serves the others.
    fs::create_dir(folder.path().join("built.wasm")).unwrap();
    let settings = Settings::new().module_file("Test", "built.wasm", "").module("Other", "test_guest", "");
    fs::write(&pipe, settings.text()).unwrap();
    let line = settings.text().lines().position(|line| line.starts_with("component")).unwrap() + 1;
    let ran = modhost(folder.path(), "check", &[], &[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let told = format!(
        "cannot serve Test: built.wasm: modules.toml:{line}:13: the component built.wasm is a folder, not a file"
    );
    assert!(ran.stdout.contains(&told), "{}", ran.stdout);
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
async fn a_hangup_reloads() {
    let mut host = with_dot_env("", &format!("{REST}TEST_ENDPOINT_SECRET=usig_first\n")).await;
    signal(&host, "-HUP");
    host.logged(&["reload requested"]).await;
    host.save_settings(&Settings::new().server("max_body = \"20B\""));
    signal(&host, "-HUP");
    host.logged(&["settings reloaded"]).await;
    assert_eq!(signed(&host, "usig_first").await, StatusCode::SERVICE_UNAVAILABLE, "the body is too large by now");
    assert!(host.stop().await.success());
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_ends_at_once() {
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
