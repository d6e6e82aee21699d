//! The admin API of a running host, as commands ask it.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::config::{Environment, Reference, Secret};
use crate::platform::http_client;

/// Where the running host is.
#[derive(Args, Clone)]
pub(super) struct AdminArgs {
    /// The admin address of the running host
    #[arg(long, global = true, value_name = "URL", env = "MODHOST_ADMIN", default_value = "http://127.0.0.1:8081")]
    admin: Url,
    /// The token the admin address wants, by reference: env:NAME or file:PATH
    #[arg(long, global = true, value_name = "REFERENCE", default_value = "env:MODHOST_ADMIN_TOKEN")]
    admin_token: String,
}

/// What there is to try where no host answers.
pub(super) const AT_REST: &str = ", --data-dir reads what a host that doesn't run has left";

/// A running host.
pub(super) struct AdminApi {
    client: reqwest::Client,
    admin: Url,
    token: Option<Secret>,
    /// What else can be done if nobody answers there.
    otherwise: &'static str,
}

impl AdminApi {
    /// The host at an address; `otherwise` is what else there is to try if none answers.
    pub(super) fn new(args: &AdminArgs, otherwise: &'static str) -> anyhow::Result<Self> {
        let environment = Environment::load(".")?;
        let token = Reference::from_flag("--admin-token", &args.admin_token)?.resolve(&environment).ok();
        Ok(Self { client: http_client()?, admin: args.admin.clone(), token, otherwise })
    }

    /// Reads what is at a path, each of whose segments may be any text.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<T> {
        self.ask(path, |client, url| client.get(url).query(query)).await
    }

    /// Asks for something to be done.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> anyhow::Result<T> {
        self.ask(path, |client, url| client.post(url).json(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &[&str],
        request: impl FnOnce(&reqwest::Client, Url) -> reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let mut url = self.admin.join("api").context("the admin address makes no URL")?;
        url.path_segments_mut().map_err(|()| anyhow!("the admin address makes no URL"))?.extend(path);
        let mut request = request(&self.client, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let answer = request.send().await.map_err(|_| {
            let Self { admin, otherwise, .. } = self;
            anyhow!("no host answers at {admin}; is it running? --admin names another address{otherwise}")
        })?;
        if answer.status().is_success() {
            return Ok(answer.json().await?);
        }
        let status = answer.status();
        let told: Value = answer.json().await.unwrap_or_default();
        bail!("{}", told["error"].as_str().map_or_else(|| format!("the host answered {status}"), str::to_owned));
    }
}
