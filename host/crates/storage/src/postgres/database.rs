//! The database that several hosts share.

use std::sync::Arc;

use tokio_postgres_rustls::MakeRustlsConnect;

use super::pool::Pool;
use super::settings::{PostgresSettings, STORE};
use super::{read, tls};
use crate::error::StorageError;
use modhost_core::secret::Secret;

/// A PostgreSQL database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

/// What all connections have in common.
pub(super) struct Shared {
    pub(super) settings: PostgresSettings,
    pub(super) tls: MakeRustlsConnect,
}

/// What a database guarantees for what it acknowledged, for the log at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// The version of the server.
    pub server_version: String,
    /// The setting `synchronous_commit`; never `off`.
    pub synchronous_commit: String,
    /// The setting `synchronous_standby_names`. If it is empty, what was acknowledged last is lost if the primary's disk is.
    pub synchronous_standby_names: String,
}

impl Database {
    /// Reads the settings and the CA certificates. Connects later.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the URL is invalid or the certificates can't be
    /// read.
    pub fn new(url: &Secret) -> Result<Self, StorageError> {
        let settings = PostgresSettings::parse(url)?;
        let tls = tls::connector(&settings)?;
        Ok(Self { shared: Arc::new(Shared { settings, tls }) })
    }

    /// Connects, and returns what the server guarantees.
    ///
    /// # Errors
    ///
    /// If the server can't be reached, or has `synchronous_commit = off`.
    pub async fn durability(&self) -> Result<Durability, StorageError> {
        let pool = self.pool(STORE, "start", 1);
        let sql = "SELECT current_setting('server_version'), current_setting('synchronous_commit'), \
                   current_setting('synchronous_standby_names')";
        read!(pool, session => {
            let rows = session.query(sql, &[]).await?;
            let text = |column| rows.first().map_or(Ok(String::new()), |row| session.get(row, column));
            Ok(Durability {
                server_version: text(0)?,
                synchronous_commit: text(1)?,
                synchronous_standby_names: text(2)?,
            })
        })
    }

    /// Creates a pool of up to `size` connections for a role of a store. `store` is the name of the store in messages.
    pub(crate) fn pool(&self, store: &'static str, role: &'static str, size: usize) -> Pool {
        Pool::new(Arc::clone(&self.shared), store, role, size)
    }
}

/// Names the database and its hosts; never the password.
impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shared.settings.fmt(f)
    }
}
