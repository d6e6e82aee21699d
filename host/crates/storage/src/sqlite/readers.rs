//! Read-only connections, which are used concurrently with the writer: a long read delays no write. A tenant cannot
//! occupy all of them.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::Database;
use crate::error::StorageError;
use modhost_core::event::Name;
use modhost_core::sync::lock;
use modhost_core::tenant_permits::TenantPermits;

/// Maximum number of concurrent reads.
const MAX_READERS: u32 = 4;

/// Maximum number of concurrent reads of a tenant.
const MAX_READERS_PER_TENANT: usize = 2;

/// A pool of read-only connections, opened when they are first needed.
pub(crate) struct Readers {
    database: Database,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
    tenants: TenantPermits,
}

impl Readers {
    pub(crate) fn new(database: Database) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_READERS as usize));
        Self { database, permits, idle: Arc::default(), tenants: TenantPermits::new(MAX_READERS_PER_TENANT) }
    }

    /// Runs queries in one read transaction, so that they see one snapshot of the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| self.database.closed())?;
        let (database, idle) = (self.database.clone(), Arc::clone(&self.idle));
        let read = tokio::task::spawn_blocking(move || {
            // A connection is returned to the pool only after its transaction has ended.
            let pooled = lock(&idle).pop();
            let read = match pooled {
                Some(connection) => Ok(connection),
                None => database.connect_to_read(),
            }
            .and_then(|mut connection| {
                let transaction = connection.transaction()?;
                let read = work(&transaction)?;
                transaction.commit()?;
                lock(&idle).push(connection);
                Ok(read)
            });
            drop(permit);
            read.map_err(|error| database.explain(&error))
        });
        read.await.map_err(|error| self.database.task_failed(&error))?
    }

    /// Runs queries for a tenant, as [`Readers::read`] does.
    pub(crate) async fn read_for<T: Send + 'static>(
        &self,
        tenant: &Name,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let _permit = self.tenants.acquire(tenant).await;
        self.read(work).await
    }

    /// Waits for running reads and closes the connections. Later reads are rejected.
    pub(crate) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(MAX_READERS).await {
            self.permits.close();
            drop(all);
        }
        lock(&self.idle).clear();
    }
}
