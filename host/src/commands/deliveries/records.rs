//! Where deliveries are looked up: a running host's admin API, or the journal of one that doesn't run.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{anyhow, bail};
use serde_json::{Value, json};

use super::FromArgs;
use crate::commands::admin::{AT_REST, AdminApi};
use crate::commands::output;
use modhost_core::event::{DeliveryId, Name};
use modhost_server::admin_api::{DeliveryView, DetailsView};
use modhost_storage::journal::{AtRest, Filter, SqliteSettings, State};

/// Where deliveries are looked up.
pub(in crate::commands) enum Records {
    Running(AdminApi),
    AtRest(AtRest),
}

/// Which deliveries are asked for.
pub(in crate::commands) struct RecordFilter {
    pub(in crate::commands) state: Option<State>,
    pub(in crate::commands) module: Option<String>,
    pub(in crate::commands) tenant: Option<String>,
    pub(in crate::commands) event: Option<String>,
    pub(in crate::commands) since: Option<SystemTime>,
    pub(in crate::commands) limit: u32,
}

const READ_ONLY: &str = "a data directory at rest is only read; start the host, and leave --data-dir out";

impl Records {
    /// The journal at rest that is named, else that of the host of these settings.
    pub(in crate::commands) async fn open(from: &FromArgs, config: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(directory) = &from.data_dir {
            let journal = AtRest::open(SqliteSettings { directory: directory.clone() }).await?;
            if let Some(missing) = journal.missing() {
                output::eprintln!("warning: {missing}");
            }
            return Ok(Self::AtRest(journal));
        }
        Ok(Self::Running(AdminApi::new(&from.admin, config, AT_REST)?))
    }

    pub(in crate::commands) async fn list(&self, wanted: &RecordFilter) -> anyhow::Result<Vec<DeliveryView>> {
        match self {
            Self::Running(api) => {
                let mut query: Vec<(&str, String)> = vec![("limit", wanted.limit.to_string())];
                query.extend(wanted.state.map(|state| ("state", state.to_string())));
                query.extend(wanted.module.clone().map(|module| ("module", module)));
                query.extend(wanted.tenant.clone().map(|tenant| ("tenant", tenant)));
                query.extend(wanted.event.clone().map(|event| ("event", event)));
                query.extend(wanted.since.map(|since| ("since", milliseconds(since).to_string())));
                let answer: Value = api.get(&["deliveries"], &query).await?;
                Ok(serde_json::from_value(answer["deliveries"].clone())?)
            }
            Self::AtRest(journal) => {
                let filter = Filter {
                    state: wanted.state,
                    module: wanted.module.clone().map(Name::from),
                    tenant: wanted.tenant.clone().map(Name::from),
                    event: wanted.event.clone(),
                    since: wanted.since,
                    limit: Some(wanted.limit),
                };
                Ok(journal.list(filter).await?.into_iter().map(DeliveryView::from).collect())
            }
        }
    }

    pub(in crate::commands) async fn show(&self, id: &str) -> anyhow::Result<DetailsView> {
        match self {
            Self::Running(api) => api.get(&["deliveries", id], &[]).await,
            Self::AtRest(journal) => {
                let details = journal.show(&DeliveryId::from_text(id)).await?;
                details
                    .map(DetailsView::from)
                    .ok_or_else(|| anyhow!("there is no delivery {id} in this data directory"))
            }
        }
    }

    /// What chance a delivery's module draws from; known only where the journal itself is at hand.
    pub(in crate::commands) fn salt(&self) -> [u8; 32] {
        match self {
            Self::Running(_) => [0; 32],
            Self::AtRest(journal) => journal.salt(),
        }
    }

    pub(in crate::commands) async fn retry(&self, id: &str, fresh: bool) -> anyhow::Result<String> {
        self.post(&["deliveries", id, "retry"], &json!({ "fresh": fresh })).await
    }

    pub(in crate::commands) async fn drop_waiting(&self, id: &str, reason: Option<&str>) -> anyhow::Result<String> {
        self.post(&["deliveries", id, "drop"], &json!({ "reason": reason })).await
    }

    /// The running host; what is at rest is only read, and isn't asked through here.
    fn api(&self) -> anyhow::Result<&AdminApi> {
        match self {
            Self::Running(api) => Ok(api),
            Self::AtRest(_) => bail!(READ_ONLY),
        }
    }

    async fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<String> {
        let answer: Value = self.api()?.post(path, body).await?;
        Ok(answer["state"].as_str().unwrap_or_default().to_owned())
    }
}

fn milliseconds(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}
