//! Read-only connections, which are used concurrently with the writer: a long read delays no write.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::Database;
use crate::error::StorageError;
use modhost_core::sync::lock;

/// Maximum number of concurrent reads.
const MAX_READERS: u32 = 4;

/// A pool of read-only connections, opened when they are first needed.
pub(crate) struct Readers {
    database: Database,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, permits: Arc::new(Semaphore::new(MAX_READERS as usize)), idle: Arc::default() }
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

    /// Waits for running reads and closes the connections. Later reads are rejected.
    pub(crate) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(MAX_READERS).await {
            self.permits.close();
            drop(all);
        }
        lock(&self.idle).clear();
    }
}
