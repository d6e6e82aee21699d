//! The local platform: an emulator of Unique AI's public API over HTTP.
//!
//! In development a module takes the same path as in production: the host gets signed webhooks or fetches events from
//! the event socket, and calls the same paths with the same bodies. All shapes follow the requests and the parsing of
//! the official Python SDK, which works against the emulator. The emulator also implements the one call of NexusGPT's
//! API that modules use.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod chats;
mod citations;
mod completion;
mod credentials;
mod deliver;
mod documents;
mod error;
mod event_socket;
mod events;
mod filter;
mod library;
mod local_api;
mod message_log;
mod messages;
mod openai;
mod quote;
mod relay;
mod routes;
mod search;
mod settings;
mod space;
mod stemmer;
mod stream_completions;
mod threads;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use events::EVENTS;
pub use settings::{
    API_KEY, APP_ID, Assistant, AssistantTenant, COMPANY_ID, CompletionEndpoint, ENDPOINT_SECRET, LocalSettings,
    USER_ID,
};

use chats::{Chat, Chats};
use completion::Model;
use deliver::Deliverer;
use documents::Document;
use error::ApiError;
use event_socket::Subscribers;
use library::{Hit, Library};
use modhost_core::browser_guard::{BrowserGuard, HostName};
use relay::Relay;
use threads::Threads;
use wire::{Message, Stamp};

/// How long requests in flight have to finish at shutdown.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Why a local platform could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The listener can't be bound.
    #[error(
        "the local platform can't listen on {address}: {source}; choose another port with --platform-port, 0 for any free one"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The documents folder can't be read.
    #[error("the documents folder {path} can't be read: {source}; name another with --documents")]
    Documents {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The index can't be built.
    #[error("the documents can't be indexed: {0}")]
    Index(#[source] rusqlite::Error),
    /// The chats of earlier runs can't be opened.
    #[error(
        "the chats in {path} can't be opened: {reason}; move the file away to start with no chats, or name another folder with --data-dir"
    )]
    Chats {
        /// The file.
        path: PathBuf,
        /// The error of SQLite or the system.
        reason: String,
    },
    /// The HTTP client can't be set up.
    #[error("the HTTP client can't be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// Two assistants have the same id.
    #[error("there are two assistants with the id {0:?}: each needs its own")]
    DuplicateAssistant(String),
}

/// A running local platform. Dropping it stops it immediately; [`LocalPlatform::shutdown`] lets requests in flight
/// finish.
pub struct LocalPlatform {
    state: Arc<LocalState>,
    guard: Arc<ArcSwap<BrowserGuard>>,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl LocalPlatform {
    /// Starts a local platform. When this returns, it accepts requests.
    ///
    /// # Errors
    ///
    /// If the address is in use, or the documents or the stored chats can't be read.
    pub async fn start(settings: LocalSettings) -> Result<Self, LocalError> {
        // An error means that the process has a default provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listen = settings.listen;
        let unable = |source| LocalError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(unable)?;
        let address = listener.local_addr().map_err(unable)?;
        let stop = CancellationToken::new();
        let guard = Arc::new(ArcSwap::from_pointee(BrowserGuard::new(address.ip(), settings.hosts.clone())));
        let state = Arc::new(LocalState::new(settings, origin(address), stop.clone())?);
        let server = axum::serve(listener, routes::router(Arc::clone(&state), Arc::clone(&guard)))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "local platform stopped");
            }
        });
        Ok(Self { state, guard, address, stop, server })
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL of the public API, as configured in clients: `http://127.0.0.1:8092/public/chat`.
    pub fn api_base(&self) -> Url {
        let mut url = origin(self.address);
        url.set_path("/public/chat");
        url
    }

    /// Returns the base URL of the threads API, NexusGPT's: `http://127.0.0.1:8092/`.
    pub fn threads_base(&self) -> Url {
        origin(self.address)
    }

    /// Returns the base URL of the OpenAI-compatible API: `http://127.0.0.1:8092/v1`.
    pub fn completions_base(&self) -> Url {
        let mut url = origin(self.address);
        url.set_path("/v1");
        url
    }

    /// Returns the number of indexed documents.
    pub fn document_count(&self) -> usize {
        self.state.library.documents().len()
    }

    /// Sets the webhook endpoint. A new endpoint is not expired.
    pub fn set_webhook(&self, url: Url) {
        self.state.deliverer.set_url(url);
    }

    /// Sets the host names it accepts besides those of this machine.
    pub fn set_hosts(&self, hosts: Vec<HostName>) {
        self.guard.store(Arc::new(BrowserGuard::new(self.address.ip(), hosts)));
    }

    /// Replaces the assistants. Chats of removed assistants stay readable.
    ///
    /// # Errors
    ///
    /// If two assistants have the same id; then the previous ones stay.
    pub fn set_assistants(&self, assistants: Vec<Assistant>) -> Result<(), LocalError> {
        self.state.assistants.store(Arc::new(distinct(assistants)?));
        Ok(())
    }

    /// Records why the module that should have filled a message failed. The local API shows it with the chat.
    pub fn note_failure(&self, message_id: &str, reason: &str) {
        self.state.chats.note_failure(message_id, reason);
    }

    /// Reactivates an expired endpoint; returns `false` if it isn't expired.
    pub fn revive_endpoint(&self) -> bool {
        self.state.deliverer.revive()
    }

    /// Stops the platform: it accepts no new requests, requests in flight get five seconds, and pending deliveries are
    /// dropped.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(FINISH_WITHIN, &mut self.server).await.is_err() {
            self.server.abort();
        }
        self.state.deliverer.finish().await;
    }
}

impl Drop for LocalPlatform {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.abort();
    }
}

/// The state shared by all requests.
struct LocalState {
    chats: Chats,
    library: Arc<Library>,
    deliverer: Arc<Deliverer>,
    assistants: ArcSwap<Vec<Arc<Assistant>>>,
    model: Model,
    started: Stamp,
    threads: Threads,
}

impl LocalState {
    fn new(settings: LocalSettings, origin: Url, stop: CancellationToken) -> Result<Self, LocalError> {
        let model = match settings.completion {
            Some(endpoint) => Model::Endpoint(Box::new(Relay::new(endpoint)?)),
            None => Model::Quote,
        };
        let subscribers = Subscribers::new(settings.socket_lifetime, stop.clone());
        Ok(Self {
            chats: open_chats(settings.data_dir.as_deref())?,
            library: Arc::new(Library::open(settings.documents.as_deref(), origin)?),
            deliverer: Deliverer::new(settings.webhook, settings.retry_delay, subscribers, stop)?,
            assistants: ArcSwap::from_pointee(distinct(settings.assistants)?),
            model,
            started: Stamp::now(),
            threads: Threads::default(),
        })
    }

    /// Whether an assistant's tenant has this company.
    fn has_company(&self, company: Option<&str>) -> bool {
        let assistants = self.assistants.load();
        let mut tenants = assistants.iter().filter_map(|assistant| assistant.tenant.as_ref());
        tenants.any(|tenant| company == Some(tenant.company.as_str()))
    }

    /// Returns the assistant with this id, or the platform's 404.
    fn assistant(&self, id: &str) -> Result<Arc<Assistant>, ApiError> {
        let assistants = self.assistants.load();
        assistants
            .iter()
            .find(|assistant| assistant.id == id)
            .cloned()
            .ok_or_else(|| ApiError::not_found("assistant", id))
    }

    /// Returns the chat with this id, or the platform's 404.
    fn chat(&self, id: &str) -> Result<Chat, ApiError> {
        self.chats.chat(id)?.ok_or_else(|| ApiError::not_found("chat", id))
    }

    /// Returns the message with this id in this chat, or the platform's 404.
    fn message(&self, chat_id: &str, id: &str) -> Result<Message, ApiError> {
        self.chat(chat_id)?;
        let found = self.chats.message(id)?.filter(|message| message.chat_id == chat_id);
        found.ok_or_else(|| ApiError::not_found("message", id))
    }

    /// Searches the documents on a blocking thread, since the search may read the folder.
    async fn search(
        &self,
        text: String,
        wanted: impl Fn(&Document) -> bool + Send + 'static,
    ) -> Result<Vec<Hit>, ApiError> {
        let library = Arc::clone(&self.library);
        let hits = tokio::task::spawn_blocking(move || library.search(&text, wanted)).await;
        let hits = hits.map_err(|error| ApiError::internal(format!("the search was interrupted: {error}")))?;
        hits.map_err(|error| ApiError::internal(format!("the documents can't be searched: {error}")))
    }
}

fn open_chats(data_dir: Option<&Path>) -> Result<Chats, LocalError> {
    let Some(folder) = data_dir else {
        return Chats::open(None)
            .map_err(|error| LocalError::Chats { path: "memory".into(), reason: error.to_string() });
    };
    let path = folder.join("local-platform.sqlite");
    let opened = std::fs::create_dir_all(folder).map_err(|error| error.to_string());
    let opened = opened.and_then(|()| Chats::open(Some(&path)).map_err(|error| error.to_string()));
    opened.map_err(|reason| LocalError::Chats { path, reason })
}

fn distinct(assistants: Vec<Assistant>) -> Result<Vec<Arc<Assistant>>, LocalError> {
    let mut ids = std::collections::HashSet::new();
    match assistants.iter().find(|assistant| !ids.insert(assistant.id.as_str())) {
        Some(twice) => Err(LocalError::DuplicateAssistant(twice.id.clone())),
        None => Ok(assistants.into_iter().map(Arc::new).collect()),
    }
}

/// Returns the address as URL for clients on this machine: loopback if it listens on all interfaces.
fn origin(address: SocketAddr) -> Url {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let origin = format!("http://{}/", SocketAddr::new(ip, address.port()));
    Url::parse(&origin).unwrap_or_else(|_| unreachable!("an address and a port make a URL"))
}
