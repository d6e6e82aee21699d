//! Where deliveries are looked up: a running host's admin API, or the journal of one that doesn't run.

use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::FromArgs;
use crate::config::{Environment, Reference, Secret};
use crate::console::{DeliveryView, DetailsView};
use crate::event::{DeliveryId, Name};
use crate::journal::{AtRest, Filter, SqliteSettings, State};
use crate::platform::http_client;

/// Where deliveries are looked up.
pub(in crate::commands) enum Records {
    Running { client: reqwest::Client, admin: Url, token: Option<Secret> },
    AtRest(AtRest),
}

/// Which deliveries are asked for.
pub(in crate::commands) struct Wanted {
    pub(in crate::commands) state: Option<State>,
    pub(in crate::commands) module: Option<String>,
    pub(in crate::commands) tenant: Option<String>,
    pub(in crate::commands) event: Option<String>,
    pub(in crate::commands) since: Option<SystemTime>,
    pub(in crate::commands) limit: u32,
}

const READ_ONLY: &str = "a data directory at rest is only read; start the host, and leave --data-dir out";

impl Records {
    pub(in crate::commands) async fn open(from: &FromArgs) -> anyhow::Result<Self> {
        if let Some(directory) = &from.data_dir {
            return Ok(Self::AtRest(AtRest::open(SqliteSettings { directory: directory.clone() }).await?));
        }
        let environment = Environment::load(".")?;
        let token = Reference::from_flag("--admin-token", &from.admin_token)?.resolve(&environment).ok();
        Ok(Self::Running { client: http_client()?, admin: from.admin.clone(), token })
    }

    pub(in crate::commands) async fn list(&self, wanted: &Wanted) -> anyhow::Result<Vec<DeliveryView>> {
        match self {
            Self::Running { .. } => {
                let mut query: Vec<(&str, String)> = vec![("limit", wanted.limit.to_string())];
                query.extend(wanted.state.map(|state| ("state", state.to_string())));
                query.extend(wanted.module.clone().map(|module| ("module", module)));
                query.extend(wanted.tenant.clone().map(|tenant| ("tenant", tenant)));
                query.extend(wanted.event.clone().map(|event| ("event", event)));
                query.extend(wanted.since.map(|since| ("since", milliseconds(since).to_string())));
                let answer: Value = self.get("api/deliveries", &query).await?;
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
            Self::Running { .. } => self.get(&format!("api/deliveries/{id}"), &[]).await,
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
            Self::Running { .. } => [0; 32],
            Self::AtRest(journal) => journal.salt(),
        }
    }

    pub(in crate::commands) async fn retry(&self, id: &str, fresh: bool) -> anyhow::Result<String> {
        self.post(&format!("api/deliveries/{id}/retry"), &json!({ "fresh": fresh })).await
    }

    pub(in crate::commands) async fn drop_waiting(&self, id: &str, reason: Option<&str>) -> anyhow::Result<String> {
        self.post(&format!("api/deliveries/{id}/drop"), &json!({ "reason": reason })).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<T> {
        self.ask(path, |client, url| client.get(url).query(query)).await
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let answer: Value = self.ask(path, |client, url| client.post(url).json(body)).await?;
        Ok(answer["state"].as_str().unwrap_or_default().to_owned())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        request: impl FnOnce(&reqwest::Client, Url) -> reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let Self::Running { client, admin, token } = self else { bail!(READ_ONLY) };
        let url = admin.join(path).context("the admin address makes no URL")?;
        let mut request = request(client, url);
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        let answer = request.send().await.map_err(|_| {
            anyhow!(
                "no host answers at {admin}; is it running? --admin names another address, --data-dir reads what a host \
                 that doesn't run has left"
            )
        })?;
        if answer.status().is_success() {
            return Ok(answer.json().await?);
        }
        let status = answer.status();
        let told: Value = answer.json().await.unwrap_or_default();
        bail!("{}", told["error"].as_str().map_or_else(|| format!("the host answered {status}"), str::to_owned));
    }
}

fn milliseconds(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}
