//! A connection to the database.

use std::sync::Arc;

use futures::FutureExt;
use tokio::task::AbortHandle;
use tokio_postgres::{CancelToken, Client, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::database::Shared;
use super::failure::{Failure, explain};
use super::values::Value;
use crate::error::StorageError;

/// A connection to the database. Dropping it closes it; what the server is doing for it then still takes effect or not.
pub(crate) struct Session {
    client: Client,
    driver: AbortHandle,
    shared: Arc<Shared>,
    store: &'static str,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects, to the first host that accepts writes, and checks that the server keeps what it acknowledges.
    pub(super) async fn connect(shared: &Arc<Shared>, store: &'static str) -> Result<Self, Failure> {
        let connecting = shared.settings.config().connect(shared.tls.clone());
        let (client, connection) = connecting.await.map_err(|error| explain(&error, store, &shared.settings))?;
        // The task ends with the session. An error of the connection is that of the statements as well.
        let driver = tokio::spawn(connection.map(drop)).abort_handle();
        let session = Self { client, driver, shared: Arc::clone(shared), store };
        session.check_durability().await?;
        Ok(session)
    }

    /// Checks `synchronous_commit`: with `off`, the server acknowledges what it loses in a crash.
    async fn check_durability(&self) -> Result<(), Failure> {
        let rows = self.query("SELECT current_setting('synchronous_commit')", &[]).await?;
        match rows.first().map(|row| self.get::<String>(row, 0)).transpose()?.as_deref() {
            Some("off") => Err(Failure::Refused(StorageError::unusable(
                self.store,
                format!(
                    "{} has synchronous_commit = off, which loses acknowledged events in a crash; set it to on \
                     (ALTER DATABASE … SET synchronous_commit = on, and ALTER ROLE likewise)",
                    self.shared.settings
                ),
            ))),
            _ => Ok(()),
        }
    }

    /// Runs a statement and returns its rows. It is parsed, planned and executed in one round trip, and leaves nothing in the
    /// session, so that the next one may run in another session of the server.
    pub(crate) async fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Failure> {
        self.client.query_typed(sql, values).await.map_err(|error| self.explain(&error))
    }

    /// Runs a statement and returns the number of rows it changed.
    pub(crate) async fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, Failure> {
        self.client.execute_typed(sql, values).await.map_err(|error| self.explain(&error))
    }

    /// Runs statements without parameters.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.client.batch_execute(sql).await.map_err(|error| self.explain(&error))
    }

    /// Returns a column of a row.
    pub(crate) fn get<T>(&self, row: &Row, column: usize) -> Result<T, Failure>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        row.try_get(column).map_err(|error| self.explain(&error))
    }

    /// Returns whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Returns a handle that cancels the running statement; only for statements that change nothing.
    pub(super) fn canceler(&self) -> Canceler {
        Canceler { token: self.client.cancel_token(), tls: self.shared.tls.clone() }
    }

    fn explain(&self, error: &tokio_postgres::Error) -> Failure {
        explain(error, self.store, &self.shared.settings)
    }
}

/// Cancels the statement of a session.
pub(super) struct Canceler {
    token: CancelToken,
    tls: MakeRustlsConnect,
}

impl Canceler {
    /// Asks the server to cancel the statement.
    pub(super) async fn cancel(self) {
        // An error leaves the statement running, which ends by itself.
        let _ = self.token.cancel_query(self.tls).await;
    }
}
