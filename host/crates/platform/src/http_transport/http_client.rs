//! The HTTP client every platform of the process shares.

use std::time::Duration;

use super::SetupError;

/// How long a connection may take to come about, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept. Shorter than what gateways allow (60 s and more), because a request that
/// meets a connection its server is just closing can't be told from one that was carried out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a connection that waits for an answer is probed: a completion may take minutes, and middleboxes forget
/// connections that say nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Makes the HTTP client. One is enough for a process: clones share its pool of connections.
///
/// It never follows a redirect, since the credentials would go along, and takes no proxy from the environment, so
/// that what is configured is what is called. Installs `ring` as the process's TLS provider where none is installed.
///
/// # Errors
/// [`SetupError::HttpClient`] where TLS can't be set up, usually because the system has no CA certificates.
pub fn http_client() -> Result<reqwest::Client, SetupError> {
    // An error only says that a provider is installed already, which is as good.
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
