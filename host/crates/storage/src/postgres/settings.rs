//! The settings of the connections, from a URL.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use modhost_core::secret::Secret;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::error::StorageError;

/// The name of the database in messages of errors that concern no single store.
pub(super) const STORE: &str = "storage";

/// The time limit for connecting to one host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After this time without an answer to sent data, the system closes a connection, as the other end may be cut off.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection is idle before the system checks that its other end is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// The time between two of these checks. The connection is closed when [`KEEPALIVE_RETRIES`] had no answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// See [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_RETRIES: u32 = 3;

/// Where the database is, and how to connect to it.
///
/// Parsed from a URL of the form that libpq reads: `postgres://user:password@host:port,other:port/database?option=value`.
/// With several hosts, the first one that accepts writes is used, so that connections follow the primary after a failover.
///
/// TLS, by `sslmode`:
/// - `disable`: never.
/// - `prefer` (the default): if the server offers it.
/// - `require`, `verify-ca`, `verify-full`: always.
///
/// Whenever TLS is used, the server's certificate is verified with its host name, also with `prefer` and `require`, where
/// libpq accepts any. The certificate has to be issued by a CA of the system, or by one in the file `sslrootcert`.
#[derive(Clone)]
pub struct PostgresSettings {
    config: Config,
    root_certificates: Option<PathBuf>,
}

impl PostgresSettings {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the URL is invalid. The message contains no
    /// part of the URL but the name of an option, because a part that was misread may be the password.
    pub fn parse(url: &Secret) -> Result<Self, StorageError> {
        let text = url.expose().trim();
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(unusable("it does not start with postgres://"));
        }
        let (address, options) = text.split_once('?').unwrap_or((text, ""));
        let (mut kept, mut ssl_mode, mut root_certificates) = (Vec::new(), None, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", mode)) => ssl_mode = Some(read_ssl_mode(mode)?),
                Some(("sslrootcert", path)) => root_certificates = Some(decode_path(path)),
                _ => kept.push(option),
            }
        }
        let url = match kept.is_empty() {
            true => address.to_owned(),
            false => format!("{address}?{}", kept.join("&")),
        };
        // The error may quote a part of the URL.
        let mut config: Config = url.parse().map_err(|_| {
            unusable("it is not of the form postgres://user:password@host:port/database?option=value, or has an unknown option")
        })?;
        if config.get_hosts().iter().all(|host| matches!(host, Host::Tcp(name) if name.is_empty())) {
            return Err(unusable("it names no host"));
        }
        match config.get_target_session_attrs() {
            TargetSessionAttrs::Any | TargetSessionAttrs::ReadWrite => {}
            _ => return Err(unusable("target_session_attrs must be read-write, because the host writes")),
        }
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(ssl_mode.unwrap_or(SslMode::Prefer))
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        if config.get_application_name().is_none() {
            config.application_name("modhost");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        Ok(Self { config, root_certificates })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether connections may use TLS.
    pub(super) fn may_use_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
            && self.config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)))
    }

    /// Returns the file of CA certificates that replace those of the system.
    pub(super) fn root_certificates(&self) -> Option<&PathBuf> {
        self.root_certificates.as_ref()
    }
}

/// Names the database and the hosts; never the password.
impl fmt::Display for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.config.get_user().unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or(user);
        write!(f, "database {database} on ")?;
        let ports = self.config.get_ports();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            // As libpq does: one port is that of all hosts.
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(f, "{separator}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{separator}{}", path.display())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresSettings({self})")
    }
}

fn unusable(why: &str) -> StorageError {
    StorageError::unusable(STORE, format!("the URL of the PostgreSQL database cannot be used: {why}"))
}

fn read_ssl_mode(mode: &str) -> Result<SslMode, StorageError> {
    match mode {
        "disable" => Ok(SslMode::Disable),
        "prefer" | "allow" => Ok(SslMode::Prefer),
        "require" | "verify-ca" | "verify-full" => Ok(SslMode::Require),
        _ => Err(unusable("sslmode must be disable, prefer, require, verify-ca or verify-full")),
    }
}

/// Decodes the percent-encoded path in an option.
fn decode_path(text: &str) -> PathBuf {
    let pair = format!("path={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, path)| path.into_owned());
    PathBuf::from(decoded.unwrap_or_else(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresSettings, StorageError> {
        PostgresSettings::parse(&Secret::new(url))
    }

    #[test]
    fn reads_hosts_and_options_of_libpq() {
        let settings = parse(
            "postgresql://modhost:pass@db-1:6432,db-2:6433/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca+1.pem&connect_timeout=2",
        )
        .unwrap();
        assert_eq!(settings.to_string(), "database app on db-1:6432, db-2:6433");
        let config = settings.config();
        assert_eq!(
            (config.get_ssl_mode(), config.get_connect_timeout()),
            (SslMode::Require, Some(&Duration::from_secs(2)))
        );
        assert_eq!(settings.root_certificates(), Some(&PathBuf::from("/etc/ca+1.pem")));
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        let short = parse("postgres://modhost@localhost").unwrap();
        assert_eq!(short.to_string(), "database modhost on localhost:5432");
        assert_eq!((short.config().get_ssl_mode(), short.may_use_tls()), (SslMode::Prefer, true));
        assert!(!parse("postgres://a@b/c?sslmode=disable").unwrap().may_use_tls());
    }

    #[test]
    fn errors_and_debug_output_contain_no_password() {
        for url in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h/d?sslmode=hunter2",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:pass?hunter2@h/d",
            "postgres://u:hunter2@h/d?target_session_attrs=read-only",
            "postgres:///d?password=hunter2",
        ] {
            let text = match parse(url) {
                Ok(settings) => format!("{settings} {settings:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!text.contains("hunter2"), "{text}");
        }
        let settings = parse("postgres://u:hunter2@h/d").unwrap();
        assert!(!format!("{settings} {settings:?}").contains("hunter2"));
    }
}
