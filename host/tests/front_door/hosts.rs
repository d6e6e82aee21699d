//! Several hosts on one PostgreSQL database.

use std::collections::BTreeSet;
use std::path::Path;

use modhost_emulator::LocalPlatform;
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use super::cuttable_proxy::CuttableProxy;
use super::harness::{
    Host, Settings, chosen_in, component, http, modhost, read_chat, say, signed_post, until, wait_for_answer,
};
use super::http::{platform, variables};
use super::postgres_server::PostgresServer;

/// Several hosts with the same settings, each in a folder of its own.
struct Cluster {
    platform: LocalPlatform,
    /// The text of modules.toml.
    text: String,
    database: String,
}

impl Cluster {
    /// Returns `None` if PostgreSQL isn't installed.
    async fn new(settings: Settings) -> Option<Self> {
        let database = PostgresServer::shared()?.new_database();
        let settings = settings.more("[storage]\nurl = \"env:TEST_DATABASE_URL\"");
        Some(Self { platform: platform().await, text: settings.text(), database })
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("modules.toml"), &self.text).unwrap();
        folder
    }

    async fn host(&self) -> Host {
        self.host_in(self.folder()).await
    }

    async fn host_in(&self, folder: TempDir) -> Host {
        self.host_through(folder, &self.database).await
    }

    /// Starts a host that reaches the database at this address.
    async fn host_through(&self, folder: TempDir, database: &str) -> Host {
        let base = self.platform.api_base().to_string();
        let mut variables = variables(&base);
        variables.push(("TEST_DATABASE_URL", database));
        Host::serve(folder, &variables, Some(&self.platform)).await
    }

    /// Sends a command to the test guest through a host. Returns the chat.
    async fn send(&self, host: &Host, command: &str) -> String {
        let chat_id = say(&host.platform, "Test", command).await;
        let event = chosen_in(&read_chat(&host.platform, &chat_id).await, "Test");
        let answer = signed_post(&host.webhook, event.to_string()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
        chat_id
    }
}

async fn api(host: &Host, path: &str) -> Value {
    http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap().json().await.unwrap()
}

/// Waits until this many deliveries have a state, and returns them.
async fn deliveries(host: &Host, state: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} deliveries that are {state}"), async || {
        let found = api(host, &format!("deliveries?state={state}")).await["deliveries"].as_array().cloned()?;
        (found.len() == count).then_some(found)
    })
    .await
}

/// Returns the owners of a delivery's attempts.
async fn owners(host: &Host, delivery: &Value) -> Vec<String> {
    let details = api(host, &format!("deliveries/{}", delivery["id"].as_str().unwrap())).await;
    let attempts = details["attempts_made"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["owner"].as_str().unwrap().to_owned()).collect()
}

async fn hosts(folder: &Path, host: &Host) -> Vec<Value> {
    let ran = modhost(folder, "hosts", &["--json", "--admin", &host.admin], &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_one_database_share_the_work() {
    let Some(cluster) = Cluster::new(Settings::test_guest("").server("concurrency = 1")).await else { return };
    let (one, other) = (cluster.host().await, cluster.host().await);
    let mut chats = Vec::new();
    for _ in 0..8 {
        chats.push(cluster.send(&one, "sleep 300").await);
    }
    for chat in &chats {
        wait_for_answer(&one, chat).await;
    }
    let mut by = BTreeSet::new();
    for delivery in deliveries(&other, "completed", 8).await {
        by.extend(owners(&other, &delivery).await);
    }
    assert_eq!(by.len(), 2, "each host ran some of the deliveries: {by:?}");

    let listed = hosts(one.folder(), &one).await;
    let of = |key: &str| listed.iter().map(|host| host[key].clone()).collect::<Vec<_>>();
    assert_eq!((of("alive"), of("same_settings")), (vec![true.into(); 2], vec![true.into(); 2]));
    assert_eq!(listed.iter().filter(|host| host["this_host"] == true).count(), 1);
    assert_eq!(listed.iter().map(|host| host["owner"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), by);
    let table = modhost(one.folder(), "hosts", &["--admin", &one.admin], &[]).await;
    assert_eq!(table.stdout.lines().count(), 3, "{}", table.stdout);
    until("both hosts to be counted", async || {
        let health = one.health().await;
        assert_eq!(health["storage"], "postgresql");
        (health["hosts"] == 2).then_some(())
    })
    .await;
    let metrics = http().get(format!("{}/metrics", one.admin)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\nmodhost_hosts 2\n") && metrics.contains("\nmodhost_hosts_with_other_settings 0\n"));

    // A change that reached only one of them.
    let text = std::fs::read_to_string(other.file("modules.toml")).unwrap();
    other.save("modules.toml", format!("{text}\n# changed\n"));
    until("the changed settings to be listed", async || {
        let listed = hosts(one.folder(), &one).await;
        listed.iter().any(|host| host["same_settings"] == false).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_takes_its_deliveries_back_when_it_restarts() {
    let Some(cluster) = Cluster::new(Settings::test_guest("")).await else { return };
    let host = cluster.host().await;
    let chat = cluster.send(&host, "sleep 1500").await;
    let running = deliveries(&host, "running", 1).await;
    let host = cluster.host_in(host.kill()).await;
    host.logged(&["the host did not shut down cleanly"]).await;
    wait_for_answer(&host, &chat).await;
    let delivery = &deliveries(&host, "completed", 1).await[0];
    assert_eq!((&delivery["id"], delivery["attempts"].as_u64()), (&running[0]["id"], Some(2)));
    let listed = hosts(host.folder(), &host).await;
    let names: BTreeSet<&str> = listed.iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 1, "it is the same host: {listed:?}");
    let alive: Vec<&Value> = listed.iter().filter(|host| host["alive"] == true).collect();
    assert_eq!((alive.len(), &alive[0]["this_host"]), (1, &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_its_database_refuses_events_and_continues_later() {
    let Some(cluster) = Cluster::new(Settings::test_guest("")).await else { return };
    let server = PostgresServer::shared().unwrap();
    let proxy = CuttableProxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let through = cluster.database.replace(&server.port().to_string(), &proxy.address().port().to_string());
    let host = cluster.host_through(cluster.folder(), &through).await;
    let chat = cluster.send(&host, "reply before").await;
    wait_for_answer(&host, &chat).await;
    proxy.cut();
    let chat_id = say(&host.platform, "Test", "reply meanwhile").await;
    let event = chosen_in(&read_chat(&host.platform, &chat_id).await, "Test").to_string();
    let answer = signed_post(&host.webhook, event.clone()).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    proxy.heal();
    until("the event to be accepted", async || {
        signed_post(&host.webhook, event.clone()).await.status().is_success().then_some(())
    })
    .await;
    assert_eq!(wait_for_answer(&host, &chat_id).await.text(), "meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_wrong_with_the_database_of_the_settings() {
    let Some(cluster) = Cluster::new(Settings::test_guest("")).await else { return };
    let folder = cluster.folder();
    let serve = async |url: Option<&str>| {
        let base = cluster.platform.api_base().to_string();
        let mut variables = variables(&base);
        variables.extend(url.map(|url| ("TEST_DATABASE_URL", url)));
        let ran = modhost(folder.path(), "serve", &["--port", "0", "--admin-port", "0"], &variables).await;
        assert_ne!(ran.code, 0);
        ran.stderr
    };
    let unset = serve(None).await;
    assert!(unset.contains("modules.toml") && unset.contains("TEST_DATABASE_URL is not set"), "{unset}");
    let wrong = serve(Some("postgres://u:sesame@127.0.0.1:1/modhost?connect_timeout=1")).await;
    assert!(wrong.contains("`url` in [storage] in modules.toml"), "{wrong}");
    assert!(!wrong.contains("sesame"), "{wrong}");
}

/// Without its database, a host would begin anew and leave the deliveries in the database behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_stays_with_its_database() {
    let Some(cluster) = Cluster::new(Settings::test_guest("")).await else { return };
    let mut host = cluster.host().await;
    let chat = cluster.send(&host, "reply hello").await;
    wait_for_answer(&host, &chat).await;
    assert!(host.stop().await.success());
    let folder = host.folder();
    for command in ["deliveries", "modules"] {
        let ran = modhost(folder, command, &["--data-dir", ".modhost"], &[]).await;
        assert_ne!(ran.code, 0);
        assert!(ran.stderr.contains("in a database"), "{}", ran.stderr);
    }
    let text = std::fs::read_to_string(host.file("modules.toml")).unwrap();
    host.save("modules.toml", text.replace("[storage]\nurl", "# [storage]\n# url"));
    let base = cluster.platform.api_base().to_string();
    let ran = modhost(folder, "serve", &["--port", "0", "--admin-port", "0"], &variables(&base)).await;
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("has kept its deliveries in a database"), "{}", ran.stderr);
}

/// The platform sends an event to every connection, so one host at a time keeps the socket open.
#[tokio::test(flavor = "multi_thread")]
async fn one_host_keeps_an_event_socket_open_and_another_continues() {
    let Some(mut cluster) = Cluster::new(Settings::new()).await else { return };
    let text = format!(
        r#"
[storage]
url = "env:TEST_DATABASE_URL"

[[source]]
name = "unique"
kind = "event-socket"

[[tenant]]
name = "default"
companies = ["{}"]
platform = {{ kind = "unique", api_base = "env:TEST_API_BASE", app_id = "env:TEST_APP_ID", api_key = "env:TEST_API_KEY" }}

[[module]]
name = "Test"
component = {:?}
"#,
        modhost_emulator::COMPANY_ID,
        component("test_guest")
    );
    cluster.text = text;
    let (one, other) = (cluster.host().await, cluster.host().await);
    let socket = async |host: &Host| api(host, "sources").await["sources"][0].clone();
    let is_open = |socket: &Value| !socket["connected_since"].is_null();
    let position = until("one host to keep the socket open", async || {
        let sockets = [socket(&one).await, socket(&other).await];
        assert!(!sockets.iter().all(is_open), "{sockets:?}");
        sockets.iter().position(is_open)
    })
    .await;
    let (mut holder, next) = if position == 0 { (one, other) } else { (other, one) };
    assert_eq!(socket(&next).await["elsewhere"], true);
    let before = say(&holder.platform, "Test", "reply before").await;
    assert_eq!(wait_for_answer(&holder, &before).await.text(), "before");
    assert!(holder.stop().await.success());
    until("the other host to open the socket", async || is_open(&socket(&next).await).then_some(())).await;
    let after = say(&next.platform, "Test", "reply after").await;
    assert_eq!(wait_for_answer(&next, &after).await.text(), "after");
    assert_eq!(deliveries(&next, "completed", 2).await.len(), 2, "each event once");
}
