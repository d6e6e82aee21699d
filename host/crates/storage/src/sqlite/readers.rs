//! Connections that only read, beside the writer: a long read delays no write.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::Database;
use crate::error::StorageError;
use modhost_core::sync::lock;

/// Maximum number of concurrent reads.
const MAX_READERS: u32 = 4;

/// A pool of connections, opened when they are first needed.
pub(crate) struct Readers {
    database: Database,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, permits: Arc::new(Semaphore::new(MAX_READERS as usize)), idle: Arc::default() }
    }

    /// Runs a read in one transaction: it sees one state of the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| self.database.closed())?;
        let (database, idle) = (self.database.clone(), Arc::clone(&self.idle));
        let read = tokio::task::spawn_blocking(move || {
            // Only connections without an open transaction are put back.
            let known = lock(&idle).pop();
            let read = match known {
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
        read.await.map_err(|error| self.database.interrupted(&error))?
    }

    /// Waits for running reads, and rejects new ones.
    pub(crate) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(MAX_READERS).await {
            self.permits.close();
            drop(all);
        }
        lock(&self.idle).clear();
    }
}
