//! The hosts that share the storage: for the admin API.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Admin, ApiError, ApiResult};
use super::view::rfc3339;
use modhost_storage::cluster::HostStatus;

/// A host that shares the storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its name, the same in each of its lives.
    pub name: String,
    /// The owner of the leases of this life, as in the attempts of deliveries.
    pub owner: String,
    /// Whether it is the host that answers.
    pub this_host: bool,
    /// The address of its admin listener.
    pub admin: Option<String>,
    /// The version of modhost that it runs.
    pub version: String,
    /// Whether its lease holds: it runs, and the database hears from it.
    pub alive: bool,
    /// When it joined (RFC 3339).
    pub joined_at: String,
    /// When the database last heard from it (RFC 3339).
    pub seen_at: String,
    /// A hash of its modules.toml and the files that it includes.
    pub settings: String,
    /// Whether that is the hash of the host that answers.
    pub same_settings: bool,
    /// The number of modules in its settings.
    pub modules: usize,
}

impl From<&HostStatus> for HostView {
    fn from(host: &HostStatus) -> Self {
        let info = &host.info;
        Self {
            name: info.name.clone(),
            owner: info.owner.to_string(),
            this_host: false,
            admin: info.admin.clone(),
            version: info.version.clone(),
            alive: host.is_alive,
            joined_at: rfc3339(host.joined_at),
            seen_at: rfc3339(host.seen_at),
            settings: info.settings.clone(),
            same_settings: false,
            modules: info.modules.len(),
        }
    }
}

/// Returns the hosts that share the storage, by name.
pub(super) async fn list(State(admin): State<Admin>) -> ApiResult<Value> {
    let hosts = admin.cluster.hosts().await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let mut hosts: Vec<HostView> = hosts.iter().map(HostView::from).collect();
    let owner = admin.dispatcher.owner();
    let settings = hosts.iter().find(|host| host.owner == *owner).map(|host| host.settings.clone());
    for host in &mut hosts {
        host.this_host = host.owner == *owner;
        host.same_settings = settings.as_ref() == Some(&host.settings);
    }
    Ok(Json(json!({ "storage": admin.storage, "hosts": hosts })))
}
