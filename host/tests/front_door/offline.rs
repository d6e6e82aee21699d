//! Tests of `modhost modules --data-dir`: versions are inspected and changed while the host is stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use modhost_storage::versions::ContentHash;
use serde_json::{Value, json};

use super::harness::{
    Behavior, CommandOutput, Host, Settings, chat, modhost, module_state, modules, modules_json, small, small_with,
    until,
};

fn version(bytes: &[u8]) -> String {
    ContentHash::of(bytes).to_string()
}

/// A folder with the settings of a host, its module's file, and a data directory that outlives the host.
struct StoppedHost {
    folder: tempfile::TempDir,
}

impl StoppedHost {
    fn new(first: &[u8]) -> Self {
        let stopped = Self { folder: tempfile::tempdir().unwrap() };
        stopped.save(first);
        stopped
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn save(&self, bytes: &[u8]) {
        fs::write(self.path("new"), bytes).unwrap();
        fs::rename(self.path("new"), self.path("module.wasm")).unwrap();
    }

    /// Starts a host in the folder; `lines` are added to the module's entry.
    async fn start(&self, lines: &str) -> Host {
        let file = self.path("module.wasm");
        let settings = Settings::new().module_file("Test", file.to_str().unwrap(), lines);
        fs::write(self.path("modules.toml"), settings.text()).unwrap();
        settings.args(&["--data-dir", self.path("data").to_str().unwrap()]).start().await
    }

    /// Runs `modhost modules --data-dir` as user ann in the folder of modules.toml.
    async fn modules(&self, args: &[&str]) -> CommandOutput {
        modhost(self.folder.path(), "modules", &[args, &["--data-dir", "data"]].concat(), &[("USER", "ann")]).await
    }

    /// Runs the command and parses its JSON output, one object per line or a single one.
    async fn json_output(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.modules(&[args, &["--json"]].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        serde_json::Deserializer::from_str(&ran.stdout).into_iter().map(Result::unwrap).collect()
    }

    /// Runs the command, which must fail; returns its error.
    async fn refused(&self, args: &[&str]) -> String {
        let ran = self.modules(args).await;
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        ran.stderr
    }
}

async fn ask(host: &Host) -> String {
    chat(host, "Test", "who are you?").await.text().to_owned()
}

/// Every file below a folder with the hash of its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, ContentHash> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), ContentHash::of(&fs::read(&path).unwrap()))),
        }
    }
    found
}

#[tokio::test]
async fn reads_versions_without_changing_them() {
    let [one, two] = ["one", "two"].map(small);
    let stopped = StoppedHost::new(&one);
    let mut host = stopped.start("").await;
    stopped.save(&two);
    host.serves("Test", &two).await;
    modules_json(&host, &["pause", "Test"]).await;
    let running = (module_state(&host, "Test").await, modules_json(&host, &["history", "Test"]).await);
    host.stop().await;

    let before = files(&stopped.path("data"));
    let list = stopped.json_output(&[]).await;
    let (shown, history) =
        (stopped.json_output(&["show", "Test"]).await.remove(0), stopped.json_output(&["history", "Test"]).await);
    let table = stopped.modules(&["list"]).await;
    let story = stopped.modules(&["show", "Test"]).await;
    assert_eq!(files(&stopped.path("data")), before, "a read-only command changed a file");

    assert_eq!(list, std::slice::from_ref(&shown));
    for key in ["name", "version", "hash", "since", "paused", "pinned", "held_back", "canary"] {
        assert_eq!(shown[key], running.0[key], "{key}");
    }
    assert_eq!((&shown["in_flight"], &shown["versions_loaded"]), (&Value::Null, &Value::Null));
    assert_eq!(history, running.1);
    assert!(table.stdout.contains(&version(&two)) && table.stdout.contains("paused"), "{table:?}");
    assert!(story.stdout.contains("is recorded as serving since") && story.stdout.contains("not running"), "{story:?}");

    for command in ["show", "history"] {
        let nobody = stopped.refused(&[command, "Nobody"]).await;
        assert!(nobody.contains("there is no module Nobody in this data directory"), "{nobody}");
    }
    let elsewhere = modhost(stopped.folder.path(), "modules", &["--data-dir", "elsewhere"], &[]).await;
    assert!(elsewhere.code == 1 && elsewhere.stderr.contains("there is no record of versions in elsewhere"));
    let order = modhost(stopped.folder.path(), "modules", &["pause", "Test", "--data-dir", "elsewhere"], &[]).await;
    assert!(order.code == 1 && order.stderr.contains("there is no record of versions in elsewhere"), "{order:?}");
    assert!(!stopped.path("elsewhere").exists(), "a failed command created a folder");
}

#[tokio::test]
async fn host_starts_with_the_version_rolled_back_to() {
    let [one, two, three] = ["one", "two", "three"].map(small);
    let stopped = StoppedHost::new(&one);
    let mut host = stopped.start("").await;
    let busy = stopped.refused(&["rollback", "Test"]).await;
    assert!(busy.contains("already runs on the data directory data") && busy.contains("omit --data-dir"), "{busy}");
    stopped.save(&two);
    host.serves("Test", &two).await;
    host.stop().await;

    // A file deployed while the host was stopped is rolled back from.
    stopped.save(&three);
    let now = stopped.json_output(&["rollback", "Test"]).await.remove(0);
    assert_eq!((&now["version"], &now["held_back"]["version"]), (&json!(version(&one)), &json!(version(&three))));
    let none = stopped.refused(&["rollback", "Test"]).await;
    assert!(none.contains("there is no earlier version of Test"), "{none}");
    let nobody = stopped.refused(&["rollback", "Tset"]).await;
    assert!(nobody.contains("there is no module Tset in modules.toml\nhelp: did you mean Test?"), "{nobody}");

    let mut host = stopped.start("").await;
    assert_eq!(ask(&host).await, "one");
    host.logged(&["version in the file is not loaded", &version(&three), "ann went back from it"]).await;
    let history = modules_json(&host, &["history", "Test"]).await;
    assert_eq!((&history[0]["origin"], &history[0]["by"]), (&json!("rollback"), &json!("ann")));
    host.stop().await;

    assert_eq!(stopped.json_output(&["unpin", "Test"]).await[0]["held_back"], Value::Null);
    let follows = stopped.refused(&["unpin", "Test"]).await;
    assert!(follows.contains("Test follows its file"), "{follows}");
    let host = stopped.start("").await;
    host.serves("Test", &three).await;
}

#[tokio::test]
async fn host_starts_with_the_pinned_or_paused_state() {
    let [one, two, three] = ["one", "two", "three"].map(small);
    let stopped = StoppedHost::new(&one);
    let mut host = stopped.start("").await;
    stopped.save(&two);
    host.serves("Test", &two).await;
    host.stop().await;

    stopped.save(&three);
    let unknown = stopped.refused(&["pin", "Test", "0123456789"]).await;
    assert!(unknown.contains("has no version that begins with 0123456789"), "{unknown}");
    assert_eq!(stopped.json_output(&["pin", "Test", &version(&one)]).await[0]["pinned"]["version"], version(&one));
    let pinned = stopped.refused(&["rollback", "Test"]).await;
    assert!(pinned.contains("is pinned to"), "{pinned}");
    assert_eq!(stopped.json_output(&["pause", "Test"]).await[0]["paused"]["by"], "ann");

    let mut host = stopped.start("").await;
    let now = module_state(&host, "Test").await;
    assert_eq!((&now["version"], &now["paused"]["by"]), (&json!(version(&one)), &json!("ann")));
    host.stop().await;

    // The current file's version, which no host has loaded yet, can be pinned. The component then survives the deletion
    // of the file.
    assert_eq!(stopped.json_output(&["pin", "Test", &version(&three)]).await[0]["version"], version(&three));
    assert_eq!(stopped.json_output(&["resume", "Test"]).await[0]["paused"], Value::Null);
    fs::remove_file(stopped.path("module.wasm")).unwrap();
    let host = stopped.start("").await;
    assert_eq!(ask(&host).await, "three");
}

#[tokio::test]
async fn refuses_to_roll_back_to_a_version_that_cannot_serve() {
    let large = small_with("large", Behavior::Replies(1), 2 << 20);
    let stopped = StoppedHost::new(&large);
    let mut host = stopped.start("").await;
    stopped.save(&small("two"));
    host.serves("Test", &small("two")).await;
    host.stop().await;
    let mut host = stopped.start("limits = { memory = \"1MiB\" }").await;
    host.stop().await;
    let why = stopped.refused(&["rollback", "Test"]).await;
    assert!(why.contains("no change was made") && why.contains("can't start within its limits: memory"), "{why}");
    let shown = stopped.json_output(&["show", "Test"]).await.remove(0);
    assert_eq!((&shown["version"], &shown["held_back"]), (&json!(version(&small("two"))), &Value::Null));
}

#[tokio::test]
async fn retries_a_rolled_back_version() {
    let [one, two] = ["one", "two"].map(small);
    let stopped = StoppedHost::new(&one);
    let mut host = stopped.start("").await;
    stopped.save(&two);
    host.serves("Test", &two).await;
    modules_json(&host, &["rollback", "Test"]).await;
    host.stop().await;
    assert_eq!(stopped.json_output(&["retry", "Test"]).await[0]["held_back"], Value::Null);
    let host = stopped.start("").await;
    host.serves("Test", &two).await;
}

#[tokio::test]
async fn shows_and_ends_a_trial() {
    let stopped = StoppedHost::new(&small("one"));
    let swap = "swap = { canary = \"99%\", for = \"1h\" }";
    let mut host = stopped.start(swap).await;
    stopped.save(&small("two"));
    host.logged(&["canary started", "percent=99"]).await;
    until("two answers of the canary", async || {
        ask(&host).await;
        (module_state(&host, "Test").await["canary"]["runs"].as_u64() >= Some(2)).then_some(())
    })
    .await;
    let running = module_state(&host, "Test").await["canary"].clone();
    host.stop().await;

    let canary = stopped.json_output(&["show", "Test"]).await.remove(0)["canary"].clone();
    for key in ["version", "since", "runs", "failed", "stable_runs", "stable_failed"] {
        assert_eq!(canary[key], running[key], "{key}");
    }
    assert_eq!((&canary["percent"], &canary["seconds_left"]), (&Value::Null, &Value::Null));
    let story = stopped.modules(&["show", "Test"]).await;
    assert!(story.stdout.contains("is the canary since") && story.stdout.contains("0 of "), "{story:?}");

    let back = stopped.refused(&["rollback", "Test"]).await;
    assert!(back.contains("is on trial; `modhost modules abort Test` ends that"), "{back}");
    assert_eq!(stopped.json_output(&["abort", "Test"]).await[0]["held_back"]["why"], "ann ended its trial");
    let none = stopped.refused(&["promote", "Test"]).await;
    assert!(none.contains("no version of Test is on trial"), "{none}");
    let host = stopped.start(swap).await;
    let now = module_state(&host, "Test").await;
    assert_eq!((&now["version"], &now["canary"]), (&json!(version(&small("one"))), &Value::Null));
    let nothing = modules(&host, &["abort", "Test"]).await;
    assert!(nothing.code == 1, "{nothing:?}");
}
