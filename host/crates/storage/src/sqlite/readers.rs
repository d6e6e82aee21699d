//! The connections that only read, apart from the writer: a long reading keeps no one waiting.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Database, StorageError};

/// How many read at the same time at the most.
const MOST: u32 = 4;

/// A few connections, opened when they are first needed.
pub(crate) struct Readers {
    database: Database,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, permits: Arc::new(Semaphore::new(MOST as usize)), idle: Arc::default() }
    }

    /// Reads something: all of it as it was at one moment.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StorageError::closed())?;
        let (database, idle) = (self.database.clone(), Arc::clone(&self.idle));
        let read = tokio::task::spawn_blocking(move || {
            // A connection is whole again once it is put back, whatever panics.
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let read = match known {
                Some(connection) => Ok(connection),
                None => database.connect_to_read(),
            }
            .and_then(|mut connection| {
                let transaction = connection.transaction()?;
                let read = work(&transaction)?;
                transaction.commit()?;
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                Ok(read)
            });
            drop(permit);
            read.map_err(|error| database.explain(&error))
        });
        read.await.map_err(|error| StorageError::Broken(format!("reading broke off: {error}")))?
    }

    /// Waits for those that read, and lets no one begin any more.
    pub(crate) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(MOST).await {
            self.permits.close();
            drop(all);
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
