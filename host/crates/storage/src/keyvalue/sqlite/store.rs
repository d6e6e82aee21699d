//! The state of the writer thread: its connection, and the idempotency keys that can be forgotten.

use std::time::{Duration, SystemTime};

use super::tables;
use crate::error::StorageError;
use crate::keyvalue::{Bucket, Change, Changed, KeyValueError};
use crate::sqlite::{Database, WriteConnection, WriteStore, Writer, WriterLimits};
use modhost_core::clock::to_millis;
use modhost_core::limits::Limit;

/// The error of a change.
pub(super) type Fault = crate::sqlite::Fault<KeyValueError>;

/// The limits of the store's writer.
const LIMITS: WriterLimits = WriterLimits { queued: 1024, batch: 256 };

/// How long an idempotency key is kept that is never reported as answered: far longer than the usual downtime of a
/// host.
const MAX_IDEMPOTENCY_KEY_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A requested change.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    pub(super) bucket: Bucket,
    pub(super) change: Change,
    /// The quota of the space, in bytes.
    pub(super) quota: Limit,
    /// The idempotency key of the change.
    pub(super) idempotency_key: String,
    /// When it was requested, in milliseconds since 1970.
    pub(super) at: i64,
}

/// The state of the writer thread.
pub(super) struct Store {
    connection: WriteConnection,
    /// Idempotency keys to forget. The next transaction removes them, so that no transaction is needed only for them.
    keys_to_forget: Vec<String>,
    /// The number of them that the open transaction removes.
    forgotten: usize,
}

/// Starts the writer of an existing file with the current schema.
pub(super) fn start_writer(database: Database) -> Result<Writer<Store>, StorageError> {
    let connection = connect(&database).map_err(|error| database.explain(&error))?;
    let connection = WriteConnection::new(connection, database)?;
    Writer::start(Store { connection, keys_to_forget: Vec::new(), forgotten: 0 }, "keyvalue", LIMITS)
}

fn connect(database: &Database) -> rusqlite::Result<rusqlite::Connection> {
    let connection = database.connect()?;
    let old = to_millis(SystemTime::now() - MAX_IDEMPOTENCY_KEY_AGE);
    connection.execute("DELETE FROM done WHERE at < ?1", [old])?;
    // Returns the pages of deleted rows to the operating system.
    connection.execute_batch("PRAGMA incremental_vacuum")?;
    Ok(connection)
}

impl Store {
    /// Applies a change, unless it was applied before. A refused change has no effect.
    pub(super) fn change(&mut self, request: &ChangeRequest) -> Result<Changed, Fault> {
        // Dropping the savepoint rolls it back.
        let savepoint = self.connection.savepoint()?;
        let changed = tables::change(&savepoint, request)?;
        savepoint.commit()?;
        Ok(changed)
    }

    /// Forgets an idempotency key with the next commit.
    pub(super) fn forget_key(&mut self, idempotency_key: String) {
        self.keys_to_forget.push(idempotency_key);
    }
}

impl WriteStore for Store {
    type Error = KeyValueError;

    fn connection(&mut self) -> &mut WriteConnection {
        &mut self.connection
    }

    fn on_begin(&mut self) -> rusqlite::Result<()> {
        self.forgotten = self.keys_to_forget.len();
        self.keys_to_forget.iter().try_for_each(|idempotency_key| tables::forget(&self.connection, idempotency_key))
    }

    fn on_commit(&mut self) {
        self.keys_to_forget.drain(..self.forgotten);
        self.forgotten = 0;
    }

    fn close(mut self) -> Result<(), StorageError> {
        let forgotten = self.connection.transaction().and_then(|transaction| {
            self.keys_to_forget.iter().try_for_each(|idempotency_key| tables::forget(&transaction, idempotency_key))?;
            transaction.commit()
        });
        forgotten.map_err(|error| self.connection.database().explain(&error))?;
        self.connection.close()
    }
}
