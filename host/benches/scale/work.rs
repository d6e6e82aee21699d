//! Hosts whose modules wait, and events for them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use bytes::Bytes;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::secret::Secret;
use modhost_ingress::sources::schemes::unique;
use modhost_storage::journal::NewDelivery;
use tempfile::TempDir;

use crate::database;
use crate::guests;
use crate::host::{Host, Mode};

/// The module of all tenants.
pub const MODULE: &str = "Waiting";

const SECRET: &str = "usig_benchmark";

/// The time limit for the completion of all deliveries.
const PATIENCE: Duration = Duration::from_secs(300);

/// A host with its folder.
pub struct RunningHost {
    pub host: Host,
    _folder: TempDir,
}

/// Starts hosts on a database, each with these tenants and this number of places for deliveries.
pub fn start(url: &str, hosts: usize, tenants: &[String], concurrency: usize) -> anyhow::Result<Vec<RunningHost>> {
    let guest = guests::build()?.join("bench_guest.wasm");
    (0..hosts).map(|_| start_one(url, &guest, tenants, concurrency)).collect()
}

fn start_one(url: &str, guest: &Path, tenants: &[String], concurrency: usize) -> anyhow::Result<RunningHost> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(guest, folder.path().join("guest.wasm"))?;
    std::fs::write(folder.path().join(".env"), format!("SECRET={SECRET}\n"))?;
    let mut text =
        format!("[server]\nconcurrency = {concurrency}\nmax_deliveries = 10000000\n[storage]\nurl = \"{url}\"\n");
    for tenant in tenants {
        text += &format!(
            r#"
[[tenant]]
name = "{tenant}"
limits = {{ concurrency = {concurrency}, max_deliveries = 10000000 }}
platform = {{ kind = "none" }}

[[source]]
name = "{tenant}"
path = "/{tenant}"
scheme = "unique"
secrets = ["env:SECRET"]
tenant = "{tenant}"
"#
        );
    }
    text += &format!(
        "\n[[module]]\nname = \"{MODULE}\"\ncomponent = \"guest.wasm\"\nevents = [\"unique.chat.user-message.created\"]\n"
    );
    std::fs::write(folder.path().join("modules.toml"), text)?;
    Ok(RunningHost { host: Host::start(Mode::Serve, folder.path())?, _folder: folder })
}

/// The body of an event: a user's message that makes the module wait three times.
pub fn body(id: &str, wait: Duration) -> String {
    format!(
        r#"{{"id":"{id}","version":"1.0.0","event":"unique.chat.user-message.created","createdAt":"1700000000","userId":"user_1","companyId":"company_1","payload":{{"chatId":"chat_1","assistantId":"assistant_1","text":"wait {}"}}}}"#,
        wait.as_millis()
    )
}

/// Posts an event of a tenant to a host, by the URL of its public listener.
pub async fn post(client: &reqwest::Client, public: &str, tenant: &str, body: String) -> anyhow::Result<()> {
    let signature = unique::sign(&Secret::new(SECRET), body.as_bytes());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs().to_string();
    let request = client.post(format!("{public}/{tenant}")).header("x-unique-signature", signature);
    let answer = request.header("x-unique-created-at", now).body(body).send().await?;
    ensure!(answer.status() == 200, "an event was answered {}: {}", answer.status(), answer.text().await?);
    Ok(())
}

/// Returns an event as a host records it.
pub fn event(id: &str, tenant: &str, wait: Duration) -> (Arc<Event>, Vec<NewDelivery>) {
    let body = body(id, wait);
    let start = body.find(r#"{"chatId""#).unwrap_or_default();
    let end = body.len() - 1;
    let header = Header {
        id: id.to_owned(),
        source: tenant.into(),
        name: "unique.chat.user-message.created".to_owned(),
        tenant: tenant.into(),
        user_id: Some("user_1".to_owned()),
        company_id: Some("company_1".to_owned()),
        created_at: Some(1_700_000_000),
    };
    let event = Event::new(header, Bytes::from(body), start..end);
    let module = Name::from(MODULE);
    let delivery = NewDelivery { id: DeliveryId::new(&event, &module), module, ordered_chat: None, lease: None };
    (Arc::new(event), vec![delivery])
}

/// Waits until the deliveries of tenants whose names start with `prefix` have completed.
pub async fn completed(url: &str, prefix: &str) -> anyhow::Result<()> {
    let sql = format!(
        "SELECT count(*) FROM deliveries d JOIN lanes l ON l.id = d.lane \
         WHERE l.tenant LIKE '{prefix}%' AND d.state <> 'completed'"
    );
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while database::number(url, &sql)? > 0.0 {
        ensure!(tokio::time::Instant::now() < deadline, "deliveries did not complete within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
