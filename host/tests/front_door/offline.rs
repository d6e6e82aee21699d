//! Versions of a host that doesn't run: looked at in its data directory, and set right before it starts again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use modhost_storage::versions::ContentHash;
use serde_json::{Value, json};

use super::harness::{Does, Host, Ran, Settings, chat, modhost, modules, small, small_that, standing, told, until};

fn version(bytes: &[u8]) -> String {
    ContentHash::of(bytes).to_string()
}

/// A folder with the settings of a host, its module's file and its data, which outlives the host.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(first: &[u8]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.save(first);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn save(&self, bytes: &[u8]) {
        fs::write(self.path("new"), bytes).unwrap();
        fs::rename(self.path("new"), self.path("module.wasm")).unwrap();
    }

    /// Starts a host on it; further lines are those of the module's entry.
    async fn start(&self, lines: &str) -> Host {
        let file = self.path("module.wasm");
        let settings = Settings::new().module_file("Test", file.to_str().unwrap(), lines);
        fs::write(self.path("modules.toml"), settings.text()).unwrap();
        settings.args(&["--data-dir", self.path("data").to_str().unwrap()]).start().await
    }

    /// `modhost modules --data-dir`, as a user named ann, in the folder of modules.toml.
    async fn modules(&self, args: &[&str]) -> Ran {
        modhost(self.folder.path(), "modules", &[args, &["--data-dir", "data"]].concat(), &[("USER", "ann")]).await
    }

    /// What it tells as JSON, one object a line or one in all.
    async fn told(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.modules(&[args, &["--json"]].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        serde_json::Deserializer::from_str(&ran.stdout).into_iter().map(Result::unwrap).collect()
    }

    /// What it says that isn't done.
    async fn refused(&self, args: &[&str]) -> String {
        let ran = self.modules(args).await;
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        ran.stderr
    }
}

async fn says(host: &Host) -> String {
    chat(host, "Test", "who are you?").await.text().to_owned()
}

/// Every file below a folder, with the hash of what is in it.
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
async fn versions_at_rest_are_looked_at_and_left_as_they_are() {
    let [one, two] = ["one", "two"].map(small);
    let place = Place::new(&one);
    let mut host = place.start("").await;
    place.save(&two);
    host.serves("Test", &two).await;
    told(&host, &["pause", "Test"]).await;
    let running = (standing(&host, "Test").await, told(&host, &["history", "Test"]).await);
    host.stop().await;

    let before = files(&place.path("data"));
    let list = place.told(&[]).await;
    let (shown, history) = (place.told(&["show", "Test"]).await.remove(0), place.told(&["history", "Test"]).await);
    let table = place.modules(&["list"]).await;
    let story = place.modules(&["show", "Test"]).await;
    assert_eq!(files(&place.path("data")), before, "nothing is written");

    assert_eq!(list, std::slice::from_ref(&shown));
    for key in ["name", "version", "hash", "since", "paused", "pinned", "held_back", "canary"] {
        assert_eq!(shown[key], running.0[key], "{key}");
    }
    assert_eq!((&shown["in_flight"], &shown["versions_loaded"]), (&Value::Null, &Value::Null));
    assert_eq!(history, running.1);
    assert!(table.stdout.contains(&version(&two)) && table.stdout.contains("paused"), "{table:?}");
    assert!(story.stdout.contains("is recorded as serving since") && story.stdout.contains("not running"), "{story:?}");

    for command in ["show", "history"] {
        let nobody = place.refused(&[command, "Nobody"]).await;
        assert!(nobody.contains("there is no module Nobody in this data directory"), "{nobody}");
    }
    let elsewhere = modhost(place.folder.path(), "modules", &["--data-dir", "elsewhere"], &[]).await;
    assert!(elsewhere.code == 1 && elsewhere.stderr.contains("there is no record of versions in elsewhere"));
    let order = modhost(place.folder.path(), "modules", &["pause", "Test", "--data-dir", "elsewhere"], &[]).await;
    assert!(order.code == 1 && order.stderr.contains("there is no record of versions in elsewhere"), "{order:?}");
    assert!(!place.path("elsewhere").exists(), "nothing is made");
}

#[tokio::test]
async fn a_host_starts_with_what_was_gone_back_to_at_rest() {
    let [one, two, three] = ["one", "two", "three"].map(small);
    let place = Place::new(&one);
    let mut host = place.start("").await;
    let busy = place.refused(&["rollback", "Test"]).await;
    assert!(busy.contains("already runs on the data directory data") && busy.contains("omit --data-dir"), "{busy}");
    place.save(&two);
    host.serves("Test", &two).await;
    host.stop().await;

    // Deployed while the host was down: it is what is gone back from.
    place.save(&three);
    let now = place.told(&["rollback", "Test"]).await.remove(0);
    assert_eq!((&now["version"], &now["held_back"]["version"]), (&json!(version(&one)), &json!(version(&three))));
    let none = place.refused(&["rollback", "Test"]).await;
    assert!(none.contains("there is no earlier version of Test"), "{none}");
    let nobody = place.refused(&["rollback", "Tset"]).await;
    assert!(nobody.contains("there is no module Tset in modules.toml\nhelp: did you mean Test?"), "{nobody}");

    let mut host = place.start("").await;
    assert_eq!(says(&host).await, "one");
    host.logged(&["version in the file is not loaded", &version(&three), "ann went back from it"]).await;
    let history = told(&host, &["history", "Test"]).await;
    assert_eq!((&history[0]["origin"], &history[0]["by"]), (&json!("rollback"), &json!("ann")));
    host.stop().await;

    assert_eq!(place.told(&["unpin", "Test"]).await[0]["held_back"], Value::Null);
    let follows = place.refused(&["unpin", "Test"]).await;
    assert!(follows.contains("Test follows its file"), "{follows}");
    let host = place.start("").await;
    host.serves("Test", &three).await;
}

#[tokio::test]
async fn a_host_starts_with_what_was_pinned_or_paused_at_rest() {
    let [one, two, three] = ["one", "two", "three"].map(small);
    let place = Place::new(&one);
    let mut host = place.start("").await;
    place.save(&two);
    host.serves("Test", &two).await;
    host.stop().await;

    place.save(&three);
    let unknown = place.refused(&["pin", "Test", "0123456789"]).await;
    assert!(unknown.contains("has no version that begins with 0123456789"), "{unknown}");
    assert_eq!(place.told(&["pin", "Test", &version(&one)]).await[0]["pinned"]["version"], version(&one));
    let pinned = place.refused(&["rollback", "Test"]).await;
    assert!(pinned.contains("is pinned to"), "{pinned}");
    assert_eq!(place.told(&["pause", "Test"]).await[0]["paused"]["by"], "ann");

    let mut host = place.start("").await;
    let now = standing(&host, "Test").await;
    assert_eq!((&now["version"], &now["paused"]["by"]), (&json!(version(&one)), &json!("ann")));
    host.stop().await;

    // The file's own version, which no host has seen yet; then the file goes, and the component is there all the same.
    assert_eq!(place.told(&["pin", "Test", &version(&three)]).await[0]["version"], version(&three));
    assert_eq!(place.told(&["resume", "Test"]).await[0]["paused"], Value::Null);
    fs::remove_file(place.path("module.wasm")).unwrap();
    let host = place.start("").await;
    assert_eq!(says(&host).await, "three");
}

#[tokio::test]
async fn a_version_that_cannot_serve_is_not_gone_back_to_at_rest() {
    let large = small_that("large", Does::Replies(1), 2 << 20);
    let place = Place::new(&large);
    let mut host = place.start("").await;
    place.save(&small("two"));
    host.serves("Test", &small("two")).await;
    host.stop().await;
    let mut host = place.start("limits = { memory = \"1MiB\" }").await;
    host.stop().await;
    let why = place.refused(&["rollback", "Test"]).await;
    assert!(why.contains("no change was made") && why.contains("can't start within its limits: memory"), "{why}");
    let shown = place.told(&["show", "Test"]).await.remove(0);
    assert_eq!((&shown["version"], &shown["held_back"]), (&json!(version(&small("two"))), &Value::Null));
}

#[tokio::test]
async fn what_was_gone_back_from_can_be_retried_at_rest() {
    let [one, two] = ["one", "two"].map(small);
    let place = Place::new(&one);
    let mut host = place.start("").await;
    place.save(&two);
    host.serves("Test", &two).await;
    told(&host, &["rollback", "Test"]).await;
    host.stop().await;
    assert_eq!(place.told(&["retry", "Test"]).await[0]["held_back"], Value::Null);
    let host = place.start("").await;
    host.serves("Test", &two).await;
}

#[tokio::test]
async fn a_trial_is_told_and_ended_at_rest() {
    let place = Place::new(&small("one"));
    let swap = "swap = { canary = \"99%\", for = \"1h\" }";
    let mut host = place.start(swap).await;
    place.save(&small("two"));
    host.logged(&["canary started", "percent=99"]).await;
    until("two answers of the version on trial", async || {
        says(&host).await;
        (standing(&host, "Test").await["canary"]["runs"].as_u64() >= Some(2)).then_some(())
    })
    .await;
    let running = standing(&host, "Test").await["canary"].clone();
    host.stop().await;

    let canary = place.told(&["show", "Test"]).await.remove(0)["canary"].clone();
    for key in ["version", "since", "runs", "failed", "stable_runs", "stable_failed"] {
        assert_eq!(canary[key], running[key], "{key}");
    }
    assert_eq!((&canary["percent"], &canary["seconds_left"]), (&Value::Null, &Value::Null));
    let story = place.modules(&["show", "Test"]).await;
    assert!(story.stdout.contains("is the canary since") && story.stdout.contains("0 of "), "{story:?}");

    let back = place.refused(&["rollback", "Test"]).await;
    assert!(back.contains("is on trial; `modhost modules abort Test` ends that"), "{back}");
    assert_eq!(place.told(&["abort", "Test"]).await[0]["held_back"]["why"], "ann ended its trial");
    let none = place.refused(&["promote", "Test"]).await;
    assert!(none.contains("no version of Test is on trial"), "{none}");
    let host = place.start(swap).await;
    let now = standing(&host, "Test").await;
    assert_eq!((&now["version"], &now["canary"]), (&json!(version(&small("one"))), &Value::Null));
    let nothing = modules(&host, &["abort", "Test"]).await;
    assert!(nothing.code == 1, "{nothing:?}");
}
