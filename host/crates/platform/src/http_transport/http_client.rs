//! The HTTP client that all platforms of the process share.

use std::time::Duration;

use super::SetupError;

/// The timeout of connecting, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept. Shorter than the idle timeouts of gateways (60 s and more): if the server
/// closes a connection while a request is sent on it, the host can't know whether the request was carried out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The interval of keep-alive probes. A completion may take minutes, and middleboxes drop idle connections.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Creates the HTTP client. One per process is enough, since clones share the connection pool.
///
/// The client follows no redirects, because it would send the credentials along, and ignores proxies from the
/// environment, so that requests go to the configured address. Installs `ring` as the TLS provider of the process
/// unless one is installed.
///
/// # Errors
/// Returns [`SetupError::HttpClient`] if TLS can't be set up, usually because the system has no CA certificates.
pub fn http_client() -> Result<reqwest::Client, SetupError> {
    // An error only means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("modhost/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(KEEP_ALIVE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE)
        .build()
        .map_err(SetupError::HttpClient)
}
