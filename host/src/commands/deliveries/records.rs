//! The source of deliveries: a running host's admin API, or the journal of a stopped host.

use std::path::Path;
use std::time::SystemTime;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::FromArgs;
use crate::commands::admin::{AdminApi, OFFLINE_HINT};
use crate::commands::check_is_own_storage;
use crate::commands::diagnostics::{self, error_with_help};
use modhost_core::event::{DeliveryId, Name};
use modhost_server::admin_api::{DeliveryView, DetailsView};
use modhost_storage::journal::{Filter, OfflineJournal, SqliteSettings, State};

/// The deliveries of a running host, or of a stopped one.
pub(in crate::commands) enum Records {
    Running(AdminApi),
    Offline(OfflineJournal),
}

/// A filter for deliveries.
pub(in crate::commands) struct RecordFilter {
    pub(in crate::commands) state: Option<State>,
    pub(in crate::commands) module: Option<String>,
    pub(in crate::commands) tenant: Option<String>,
    pub(in crate::commands) event: Option<String>,
    pub(in crate::commands) since: Option<SystemTime>,
    pub(in crate::commands) limit: u32,
}

impl Records {
    /// Opens the data directory that the command line names, else connects to the host of these settings.
    pub(in crate::commands) async fn open(from: &FromArgs, config: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(directory) = &from.data_dir {
            check_is_own_storage(directory)?;
            let journal = OfflineJournal::open(SqliteSettings { directory: directory.clone() }).await?;
            if let Some(missing) = journal.missing() {
                diagnostics::warn(missing);
            }
            return Ok(Self::Offline(journal));
        }
        Ok(Self::Running(AdminApi::new(&from.admin, config, OFFLINE_HINT)?))
    }

    pub(in crate::commands) async fn list(&self, filter: &RecordFilter) -> anyhow::Result<Vec<DeliveryView>> {
        match self {
            Self::Running(api) => {
                let mut query: Vec<(&str, String)> = vec![("limit", filter.limit.to_string())];
                query.extend(filter.state.map(|state| ("state", state.to_string())));
                query.extend(filter.module.clone().map(|module| ("module", module)));
                query.extend(filter.tenant.clone().map(|tenant| ("tenant", tenant)));
                query.extend(filter.event.clone().map(|event| ("event", event)));
                query.extend(filter.since.map(|since| ("since", milliseconds(since).to_string())));
                let response: Value = api.get(&["deliveries"], &query).await?;
                Ok(serde_json::from_value(response["deliveries"].clone())?)
            }
            Self::Offline(journal) => {
                let filter = Filter {
                    state: filter.state,
                    module: filter.module.clone().map(Name::from),
                    tenant: filter.tenant.clone().map(Name::from),
                    event: filter.event.clone(),
                    since: filter.since,
                    limit: Some(filter.limit),
                };
                Ok(journal.list(filter).await?.into_iter().map(DeliveryView::from).collect())
            }
        }
    }

    pub(in crate::commands) async fn show(&self, id: &str) -> anyhow::Result<DetailsView> {
        match self {
            Self::Running(api) => api.get(&["deliveries", id], &[]).await,
            Self::Offline(journal) => {
                let details = journal.show(&DeliveryId::from_text(id)).await?;
                details
                    .map(DetailsView::from)
                    .ok_or_else(|| anyhow!("there is no delivery {id} in this data directory"))
            }
        }
    }

    /// Returns the seed of the modules' random numbers. A running host does not reveal it; zeros take its place.
    pub(in crate::commands) fn salt(&self) -> [u8; 32] {
        match self {
            Self::Running(_) => [0; 32],
            Self::Offline(journal) => journal.salt(),
        }
    }

    pub(in crate::commands) async fn retry(&self, id: &str, fresh: bool) -> anyhow::Result<String> {
        self.post(&["deliveries", id, "retry"], &json!({ "fresh": fresh })).await
    }

    pub(in crate::commands) async fn drop_waiting(&self, id: &str, reason: Option<&str>) -> anyhow::Result<String> {
        self.post(&["deliveries", id, "drop"], &json!({ "reason": reason })).await
    }

    /// Returns the running host.
    ///
    /// # Errors
    ///
    /// If this is the data directory of a stopped host, which is read-only.
    fn api(&self) -> anyhow::Result<&AdminApi> {
        match self {
            Self::Running(api) => Ok(api),
            Self::Offline(_) => Err(read_only()),
        }
    }

    async fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<String> {
        let response: Value = self.api()?.post(path, body).await?;
        Ok(response["state"].as_str().unwrap_or_default().to_owned())
    }
}

/// The error of a command that changes something, on the data directory of a stopped host.
pub(super) fn read_only() -> anyhow::Error {
    error_with_help("the data directory of a stopped host is read-only", "start the host, and omit --data-dir")
}

fn milliseconds(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}
