//! The settings of the local platform, and its fixed credentials.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use modhost_core::browser_guard::HostName;
use modhost_core::secret::Secret;

/// The only API key.
pub const API_KEY: &str = "ukey_local";
/// The only app.
pub const APP_ID: &str = "app_local";
/// The secret that webhooks are signed with.
pub const ENDPOINT_SECRET: &str = "usig_local";
/// The only company.
pub const COMPANY_ID: &str = "company_local";
/// The only user.
pub const USER_ID: &str = "user_local";

/// The settings of a local platform.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The host names it accepts besides those of this machine.
    pub hosts: Vec<HostName>,
    /// The documents folder: Markdown and text files, including those in subfolders. Without one, searches have no
    /// results.
    pub documents: Option<PathBuf>,
    /// The folder for stored chats, in `local-platform.sqlite`; without one, chats are kept in memory.
    pub data_dir: Option<PathBuf>,
    /// The language model; without one, answers are quotations from the documents.
    pub completion: Option<CompletionEndpoint>,
    /// The webhook endpoint; without one, events are only sent over the event socket.
    pub webhook: Option<Url>,
    /// The assistants (spaces).
    pub assistants: Vec<Assistant>,
    /// Age at which a connection to the event socket is closed; 10 minutes on the real platform.
    pub socket_lifetime: Duration,
    /// Delay before the first retry of a delivery; it doubles with each retry.
    pub retry_delay: Duration,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hosts: Vec::new(),
            documents: None,
            data_dir: None,
            completion: None,
            webhook: None,
            assistants: Vec::new(),
            socket_lifetime: Duration::from_secs(600),
            retry_delay: Duration::from_secs(1),
        }
    }
}

/// An OpenAI-compatible endpoint for chat completions.
#[derive(Clone, Debug)]
pub struct CompletionEndpoint {
    /// The base URL, as configured in clients (`http://localhost:11434/v1`), or the full URL that ends in
    /// `/chat/completions`.
    pub url: Url,
    /// The bearer key, if the endpoint needs one.
    pub key: Option<Secret>,
    /// The model to use instead of the one in the request: other endpoints don't have the platform's model names.
    /// `None`: the model of the request.
    pub model: Option<String>,
}

/// An assistant (space) of the local platform; each chat belongs to one.
#[derive(Clone, Debug, PartialEq)]
pub struct Assistant {
    /// The id: `assistant_` and the module's name.
    pub id: String,
    /// The name shown to users.
    pub name: String,
    /// The module that its messages choose, by its name on the platform.
    pub module: String,
    /// The module's configuration in this assistant, a JSON object.
    pub configuration: serde_json::Value,
    /// Whether messages choose the module. If not, only `unique.chat.user-message.created` is delivered and no empty
    /// assistant message is created: a module answers, if at all, with a message it creates.
    pub chooses: bool,
    /// The tenant of the host whose own module it is; `None`: the first tenant, which has the only company, or a module
    /// of all tenants.
    pub tenant: Option<AssistantTenant>,
}

/// The tenant of an assistant, for hosts with several tenants.
#[derive(Clone, Debug, PartialEq)]
pub struct AssistantTenant {
    /// The name of the tenant.
    pub name: String,
    /// The company of its events.
    pub company: String,
    /// Where its events are posted; `None`: to the endpoint of all others.
    pub endpoint: Option<Url>,
}

impl Assistant {
    /// Returns the company of its events.
    pub fn company(&self) -> &str {
        self.tenant.as_ref().map_or(COMPANY_ID, |tenant| &tenant.company)
    }
}
