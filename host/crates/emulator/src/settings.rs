//! What the local platform is started with, and the credentials it knows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use modhost_core::browser_guard::HostName;
use modhost_core::secret::Secret;

/// The one API key the local platform accepts.
pub const API_KEY: &str = "ukey_local";
/// The one app the local platform knows.
pub const APP_ID: &str = "app_local";
/// What the local platform signs its deliveries with.
pub const ENDPOINT_SECRET: &str = "usig_local";
/// The one company of the local platform.
pub const COMPANY_ID: &str = "company_local";
/// The one user of the local platform.
pub const USER_ID: &str = "user_local";

/// What a local platform is started with.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Under which names it may be asked, besides those of this machine.
    pub hosts: Vec<HostName>,
    /// The folder that is its knowledge base: Markdown and text files, searched with all folders below. Without one,
    /// searches find nothing.
    pub documents: Option<PathBuf>,
    /// Where chats are kept, in `local-platform.sqlite`; without it they live in memory.
    pub data_dir: Option<PathBuf>,
    /// The language model that answers; without one, answers are quotations from the documents.
    pub completion: Option<CompletionEndpoint>,
    /// The endpoint events are posted to; without one they go to those alone who listen on the event socket.
    pub webhook: Option<Url>,
    /// The assistants (spaces) people can chat with.
    pub assistants: Vec<Assistant>,
    /// How old a connection to the event socket gets before it is closed; on the real platform 10 minutes.
    pub socket_lifetime: Duration,
    /// How long the first retry of a delivery waits; each further one waits twice as long as the one before.
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
    /// Its base, as clients are given it (`http://localhost:11434/v1`), or the full address that ends in
    /// `/chat/completions`.
    pub url: Url,
    /// The bearer key, if it wants one.
    pub key: Option<Secret>,
    /// The model to ask whatever the request names: the platform's model names mean nothing to other endpoints.
    /// Without it the request's name is handed on.
    pub model: Option<String>,
}

/// An assistant (space) of the local platform: what a chat belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Assistant {
    /// Its id: `assistant_` and the module's name.
    pub id: String,
    /// What people read.
    pub name: String,
    /// The module its messages choose, by the platform's name.
    pub module: String,
    /// The module's settings in this assistant, a JSON object.
    pub configuration: serde_json::Value,
    /// Whether a message chooses the module. If not, only `unique.chat.user-message.created` is delivered and no empty
    /// assistant message is made: the answer, if any, is a message the module creates.
    pub chooses: bool,
}
