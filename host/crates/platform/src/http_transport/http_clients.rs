//! The HTTP clients that call platforms and models.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_platform_verifier::BuilderVerifierExt;

use super::{SetupError, TenantLookups};
use modhost_core::event::Name;
use modhost_core::sync::lock;
use modhost_core::tenant_meter::{self, ConnectionInUse, ConnectionKind, TenantMeter};

/// Maximum time to connect, including name resolution and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: shorter than the idle timeout of gateways (60 s and more), because a request on
/// a connection that the server is closing can't be distinguished from one that was executed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of idle connections per tenant and host.
const MAX_IDLE_PER_HOST: usize = 8;

/// Interval of keep-alive probes. A completion may take minutes, and middleboxes drop idle connections.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Number of TLS sessions that the clients of one tenant keep for resumption.
const MAX_SESSIONS: usize = 32;

/// Creates an HTTP client. Its clones share its connections.
///
/// It follows no redirects, so that credentials go only to the configured address, and ignores the proxy variables of
/// the environment.
///
/// # Errors
///
/// [`SetupError`] if TLS can't be set up, usually because the system has no CA certificates.
pub fn http_client() -> Result<Client, SetupError> {
    build(for_platforms(client_builder()?).pool_max_idle_per_host(MAX_IDLE_PER_HOST))
}

/// The HTTP clients of one tenant. No other tenant's requests use their connections: an HTTP/2 connection has one flow
/// control window and a maximum number of streams, and a tenant that reads its answers slowly, or not at all, uses them
/// up for every request on the connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClients {
    /// For answers that are read at once. Requests share connections.
    pub(super) calls: Client,
    /// For answers that a guest reads at its own pace. Each has a connection of its own, also over HTTP/2.
    pub(super) streams: Client,
    meter: Arc<TenantMeter>,
}

impl HttpClients {
    /// Creates the clients of a tenant, whose connections aren't counted anywhere.
    ///
    /// # Errors
    ///
    /// As [`http_client`].
    pub fn new() -> Result<Self, SetupError> {
        Self::with(Arc::default(), TenantLookups::of(&Name::from("")))
    }

    pub(super) fn with(meter: Arc<TenantMeter>, lookups: TenantLookups) -> Result<Self, SetupError> {
        let lookups = Arc::new(lookups);
        let mut tls = tls_config()?;
        tls.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
        let builder = || for_platforms(with_tls(tls.clone())).dns_resolver(lookups.clone());
        let calls = build(builder().pool_max_idle_per_host(MAX_IDLE_PER_HOST))?;
        // Without idle connections there is no pool, and each request opens a connection.
        let streams = build(builder().pool_max_idle_per_host(0))?;
        Ok(Self { calls, streams, meter })
    }

    /// Counts a connection of the tenant as in use until the returned value is dropped.
    pub(super) fn connection(&self) -> ConnectionInUse {
        self.meter.connection(ConnectionKind::Platform)
    }

    /// Returns the client that opens a connection for each request, for an answer that is read for as long as the
    /// connection lasts.
    pub fn streams(&self) -> &Client {
        &self.streams
    }
}

/// The HTTP clients of all tenants. A reload of the settings keeps the clients and their connections.
#[derive(Debug, Default)]
pub struct TenantHttpClients(Mutex<HashMap<Name, HttpClients>>);

impl TenantHttpClients {
    /// Returns the clients of a tenant, and creates them first if there are none.
    ///
    /// # Errors
    ///
    /// As [`http_client`].
    pub fn of(&self, tenant: &Name) -> Result<HttpClients, SetupError> {
        let mut clients = lock(&self.0);
        if let Some(clients) = clients.get_mut(tenant) {
            // The meter is another one if the tenant was away for a while.
            clients.meter = tenant_meter::of(tenant);
            return Ok(clients.clone());
        }
        let created = HttpClients::with(tenant_meter::of(tenant), TenantLookups::of(tenant))?;
        clients.insert(tenant.clone(), created.clone());
        Ok(created)
    }

    /// Drops the clients of tenants for which `keep` returns false. Their calls in flight continue.
    pub fn retain(&self, mut keep: impl FnMut(&Name) -> bool) {
        lock(&self.0).retain(|tenant, _| keep(tenant));
    }
}

/// Returns what all HTTP clients of the host have in common: they follow no redirects, ignore proxy variables, and close
/// idle connections before gateways do.
///
/// # Errors
///
/// As [`http_client`].
pub fn client_builder() -> Result<ClientBuilder, SetupError> {
    Ok(with_tls(tls_config()?))
}

fn with_tls(tls: ClientConfig) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("modhost/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tls_backend_preconfigured(tls)
}

/// Keeps connections alive while a platform or a model works on an answer.
fn for_platforms(builder: ClientBuilder) -> ClientBuilder {
    builder.tcp_keepalive(KEEP_ALIVE).http2_keep_alive_interval(KEEP_ALIVE).http2_keep_alive_timeout(KEEP_ALIVE)
}

fn build(builder: ClientBuilder) -> Result<Client, SetupError> {
    builder.build().map_err(SetupError::HttpClient)
}

/// Returns the TLS configuration of HTTP clients: the system's CA certificates, HTTP/2 if the server supports it. The
/// certificates are read once per process: they take a megabyte and some milliseconds.
///
/// # Errors
///
/// [`SetupError::Tls`] if the system's CA certificates can't be read.
fn tls_config() -> Result<ClientConfig, SetupError> {
    static TLS: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(tls) = TLS.get() {
        return Ok(tls.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(SetupError::Tls)?
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TLS.get_or_init(|| tls).clone())
}
