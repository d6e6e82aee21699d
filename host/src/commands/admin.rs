//! The admin API of a running host, as commands ask it.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::running::{RunningHost, base_url};
use modhost_config::{Environment, Reference, Settings};
use modhost_core::sanitize::lines;
use modhost_core::secret::Secret;
use modhost_platform::http_client;

/// The settings file, where nobody names one.
const SETTINGS: &str = "modules.toml";

/// The data directory, where no settings say.
const DATA_DIR: &str = ".modhost";

/// Where operators look, where no settings say.
const ADMIN: &str = "http://127.0.0.1:8081";

/// The variable that holds the token, where no settings name another.
const TOKEN: &str = "MODHOST_ADMIN_TOKEN";

/// Where the running host is.
#[derive(Args, Clone)]
pub(super) struct AdminArgs {
    /// The admin address of the running host [default: where the host of modules.toml listens, else http://127.0.0.1:8081]
    #[arg(long, global = true, value_name = "URL", env = "MODHOST_ADMIN")]
    admin: Option<Url>,
    /// The token the admin address wants, by reference: env:NAME or file:PATH [default: `admin_token` of modules.toml, else env:MODHOST_ADMIN_TOKEN]
    #[arg(long, global = true, value_name = "REFERENCE")]
    admin_token: Option<String>,
}

/// What there is to try where no host answers.
pub(super) const AT_REST: &str = ", --data-dir reads what a host that doesn't run has left";

/// A running host.
pub(super) struct AdminApi {
    client: reqwest::Client,
    admin: Url,
    token: Option<Secret>,
    /// Why there is no token, where one was looked for.
    no_token: Option<String>,
    /// What said where the host is, to go on from the address.
    source: String,
    /// What else can be done if nobody answers there.
    otherwise: &'static str,
}

/// The host that was meant, before its token is looked up.
struct Found {
    admin: Url,
    source: String,
    settings: Option<Settings>,
}

impl AdminApi {
    /// The host that flags, variables, or the settings name; `config` is the settings file, if one was named. `otherwise`
    /// is what else there is to try if none answers.
    pub(super) fn new(args: &AdminArgs, config: Option<&Path>, otherwise: &'static str) -> anyhow::Result<Self> {
        let Found { admin, source, settings } = match &args.admin {
            // The token of the settings is for the host of the settings, and no other.
            Some(admin) => Found { admin: admin.clone(), source: String::new(), settings: None },
            None => find(config)?,
        };
        let folder = settings.as_ref().map_or(PathBuf::from("."), |settings| settings.file.with_file_name(""));
        let environment = Environment::load(folder)?;
        let (token, no_token) = match &args.admin_token {
            Some(text) => (Some(Reference::from_flag("--admin-token", text)?.resolve(&environment)?), None),
            None => {
                let reference = settings.as_ref().and_then(|settings| settings.server.admin_token.as_ref());
                let configured = reference.map(|reference| reference.resolve(&environment));
                let usual = || environment.get(TOKEN).filter(|token| !token.is_empty()).map(Secret::new);
                match configured {
                    Some(Ok(token)) => (Some(token), None),
                    Some(Err(error)) => (usual(), Some(error.to_string())),
                    None => (usual(), None),
                }
            }
        };
        Ok(Self { client: http_client()?, admin, token, no_token, source, otherwise })
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
            let Self { admin, source, otherwise, .. } = self;
            anyhow!("no host answers at {admin}{source}; is it running? --admin names another address{otherwise}")
        })?;
        if answer.status().is_success() {
            return Ok(answer.json().await?);
        }
        let status = answer.status();
        let told: Value = answer.json().await.unwrap_or_default();
        let told =
            told["error"].as_str().map_or_else(|| format!("the host answered {status}"), |it| lines(it).into_owned());
        if status != StatusCode::UNAUTHORIZED {
            bail!(told);
        }
        match (&self.token, &self.no_token) {
            (None, Some(error)) => bail!("{told}, and it is not known here: {error}"),
            (None, None) => bail!("{told}; set {TOKEN}, or name it: --admin-token env:NAME or file:PATH"),
            (Some(_), _) => bail!("{told}, and the one that was sent is another; --admin-token names the right one"),
        }
    }
}

/// The host of the settings: where it runs, else where it would.
fn find(config: Option<&Path>) -> anyhow::Result<Found> {
    let path = config.unwrap_or(Path::new(SETTINGS));
    if config.is_none() && !path.exists() {
        return Ok(Found { admin: Url::parse(ADMIN)?, source: String::new(), settings: None });
    }
    let file = path.display();
    let settings = match Settings::load(path) {
        Ok(settings) => settings,
        // A host goes on with the settings it had before; it is most needed then.
        Err(errors) => match beside(path) {
            Some(admin) => return Ok(Found { admin, source: String::new(), settings: None }),
            None => bail!("{errors}\n\nmend {file}, or say where the host is: --admin http://127.0.0.1:8081"),
        },
    };
    let server = &settings.server;
    let running = RunningHost::find(&server.data_dir);
    let source = match &running {
        Some(_) => format!(", where the host of {file} listens"),
        None => format!(", `admin_listen` of {file}"),
    };
    let address = running.map_or(server.admin_listen, |running| running.admin_listen);
    if address.port() == 0 {
        bail!("no host of {file} is running, and its `admin_listen` names no port: start it, or use --admin");
    }
    // A settings file may come with somebody else's folder: what it refers to must not be sent away.
    if !is_of_this_machine(address.ip()) {
        bail!(
            "`admin_listen` of {file} is {address}, which is no address of this machine; name the host, and where its token \
             is: --admin http://{address} --admin-token env:{TOKEN}"
        );
    }
    let admin = base_url(address).with_context(|| format!("{address} makes no URL"))?;
    Ok(Found { admin, source, settings: Some(settings) })
}

/// Where the host listens that runs on the usual data directory beside a settings file.
fn beside(file: &Path) -> Option<Url> {
    let running = RunningHost::find(&file.with_file_name(DATA_DIR))?;
    Some(running.admin_listen).filter(|it| is_of_this_machine(it.ip())).and_then(base_url)
}

/// Whether an address is one that a host on this machine could listen on.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}
