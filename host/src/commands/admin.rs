//! The client of a running host's admin API.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::diagnostics::{error_with_help, with_help};
use super::running::{RunningHost, base_url};
use modhost_config::{Environment, Reference, Settings};
use modhost_core::sanitize::lines;
use modhost_core::secret::Secret;
use modhost_platform::http_client;

/// The default settings file.
const DEFAULT_SETTINGS: &str = "modules.toml";

/// The default data directory.
const DEFAULT_DATA_DIR: &str = ".modhost";

/// The default admin address.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:8081";

/// The default variable of the admin token.
const TOKEN_VARIABLE: &str = "MODHOST_ADMIN_TOKEN";

/// The address and the token of a running host.
#[derive(Args, Clone)]
pub(super) struct AdminArgs {
    /// Admin address of the running host [default: the address of the host of modules.toml, else http://127.0.0.1:8081]
    #[arg(long, global = true, value_name = "URL", env = "MODHOST_ADMIN")]
    admin: Option<Url>,
    /// Reference to the admin token: env:NAME or file:PATH [default: `admin_token` in modules.toml, else env:MODHOST_ADMIN_TOKEN]
    #[arg(long, global = true, value_name = "REFERENCE")]
    admin_token: Option<String>,
}

/// The hint for commands that also work without a running host.
pub(super) const OFFLINE_HINT: &str = "; to read the data directory of a stopped host, use --data-dir";

/// A client of a running host's admin API.
pub(super) struct AdminApi {
    client: reqwest::Client,
    admin: Url,
    token: Option<Secret>,
    /// Why the configured token cannot be read.
    token_error: Option<String>,
    /// Where the address comes from; follows it in errors.
    address_source: String,
    /// An alternative if no host answers, in hints.
    offline_hint: &'static str,
}

/// The address of a host, before its token is resolved.
struct HostAddress {
    admin: Url,
    /// Where the address comes from; follows it in errors.
    source: String,
    settings: Option<Settings>,
}

impl AdminApi {
    /// Returns a client of the host that flags, variables, or the settings name. `config` is the settings file, if the command
    /// line names one; `offline_hint` is appended to the hint if no host answers.
    ///
    /// # Errors
    ///
    /// If the settings or the token cannot be read, or the settings name a host on another machine.
    pub(super) fn new(args: &AdminArgs, config: Option<&Path>, offline_hint: &'static str) -> anyhow::Result<Self> {
        let HostAddress { admin, source: address_source, settings } = match &args.admin {
            // The token of the settings is only sent to the host of the settings.
            Some(admin) => HostAddress { admin: admin.clone(), source: String::new(), settings: None },
            None => find_host(config)?,
        };
        let folder = settings.as_ref().map_or(PathBuf::from("."), |settings| settings.file.with_file_name(""));
        let environment = Environment::load(folder)?;
        let (token, token_error) = match &args.admin_token {
            Some(text) => (Some(Reference::from_flag("--admin-token", text)?.resolve(&environment)?), None),
            None => {
                let reference = settings.as_ref().and_then(|settings| settings.server.admin_token.as_ref());
                let configured = reference.map(|reference| reference.resolve(&environment));
                let default = || environment.get(TOKEN_VARIABLE).filter(|token| !token.is_empty()).map(Secret::new);
                match configured {
                    Some(Ok(token)) => (Some(token), None),
                    Some(Err(error)) => (default(), Some(error.to_string())),
                    None => (default(), None),
                }
            }
        };
        Ok(Self { client: http_client()?, admin, token, token_error, address_source, offline_hint })
    }

    /// Sends a GET request. The segments of the path may be any text.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<T> {
        self.send(path, |client, url| client.get(url).query(query)).await
    }

    /// Sends a POST request with a JSON body.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> anyhow::Result<T> {
        self.send(path, |client, url| client.post(url).json(body)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        path: &[&str],
        request: impl FnOnce(&reqwest::Client, Url) -> reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let mut url = self.admin.join("api").with_context(|| format!("invalid admin address {}", self.admin))?;
        url.path_segments_mut().map_err(|()| anyhow!("invalid admin address {}", self.admin))?.extend(path);
        let mut request = request(&self.client, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|_| {
            let Self { admin, address_source, offline_hint, .. } = self;
            error_with_help(
                format!("no host answers at {admin}{address_source}"),
                format!("start the host, or name another address with --admin{offline_hint}"),
            )
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.json().await?);
        }
        let body: Value = response.json().await.unwrap_or_default();
        let message = body["error"].as_str().map(|message| lines(message).into_owned());
        let message = message.unwrap_or_else(|| format!("the host answered {status}"));
        if status != StatusCode::UNAUTHORIZED {
            return Err(anyhow!(message));
        }
        Err(match (&self.token, &self.token_error) {
            (None, Some(error)) => anyhow!("{message}; cannot read the configured token: {error}"),
            (None, None) => {
                error_with_help(message, format!("set {TOKEN_VARIABLE}, or pass --admin-token env:NAME or file:PATH"))
            }
            (Some(_), _) => error_with_help(
                format!("{message}; the host rejected the token that was sent"),
                "pass the right one with --admin-token env:NAME or file:PATH",
            ),
        })
    }
}

/// Returns the address of the host of the settings: the one it runs at, else the configured one.
fn find_host(config: Option<&Path>) -> anyhow::Result<HostAddress> {
    let path = config.unwrap_or(Path::new(DEFAULT_SETTINGS));
    if config.is_none() && !path.exists() {
        return Ok(HostAddress { admin: Url::parse(DEFAULT_ADMIN)?, source: String::new(), settings: None });
    }
    let file = path.display();
    let settings = match Settings::load_file(path) {
        Ok(settings) => settings,
        // The host runs with its previous settings. Operators need access to it especially now.
        Err(errors) => match find_in_default_data_dir(path) {
            Some(admin) => return Ok(HostAddress { admin, source: String::new(), settings: None }),
            None => {
                let help = format!("correct {file}, or name the host: --admin {DEFAULT_ADMIN}");
                return Err(with_help(errors, help));
            }
        },
    };
    let server = &settings.server;
    let running = RunningHost::find(&server.data_dir);
    let source = match &running {
        Some(_) => format!(", the address of the host of {file}"),
        None => format!(", `admin_listen` in {file}"),
    };
    let address = running.map_or(server.admin_listen, |running| running.admin_listen);
    if address.port() == 0 {
        return Err(error_with_help(
            format!("the host of {file} is not running, and `admin_listen` selects no fixed port"),
            "start the host, or name another one with --admin",
        ));
    }
    // The settings file may be somebody else's: never send the secrets it refers to to another machine.
    if !is_local_address(address.ip()) {
        return Err(error_with_help(
            format!("`admin_listen` in {file} is {address}, which is not an address of this machine"),
            format!("name the host and its token: --admin http://{address} --admin-token env:{TOKEN_VARIABLE}"),
        ));
    }
    let admin = base_url(address).with_context(|| format!("invalid admin address {address}"))?;
    Ok(HostAddress { admin, source, settings: Some(settings) })
}

/// Returns the admin address of the host that runs on the default data directory beside a settings file.
fn find_in_default_data_dir(file: &Path) -> Option<Url> {
    let running = RunningHost::find(&file.with_file_name(DEFAULT_DATA_DIR))?;
    Some(running.admin_listen).filter(|address| is_local_address(address.ip())).and_then(base_url)
}

/// Returns whether a host on this machine can listen on an address.
fn is_local_address(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}
