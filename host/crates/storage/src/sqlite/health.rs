//! The health of a database: the result of the last write to the disk.

use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::ErrorCode;

use crate::error::StorageError;
use modhost_core::sync::lock;

/// The result of the last write. Cheap to clone; the writer thread updates it, and any thread can read it.
#[derive(Clone, Default)]
pub(super) struct Health(Arc<Mutex<Option<StorageError>>>);

impl Health {
    /// Returns the error of the last write, if it failed.
    pub(super) fn read(&self) -> Result<(), StorageError> {
        self.lock().clone().map_or(Ok(()), Err)
    }

    /// Records that a write reached the disk.
    pub(super) fn succeeded(&self) {
        *self.lock() = None;
    }

    /// Records that a write failed. Errors that concern only the values of one job are ignored.
    pub(super) fn failed(&self, error: &rusqlite::Error, explained: &StorageError) {
        if concerns_storage(error) {
            *self.lock() = Some(explained.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<StorageError>> {
        // A poisoned lock can be used: no panic can leave the value partly updated.
        lock(&self.0)
    }
}

/// Returns whether an error concerns the file or its disk, rather than the values to write.
fn concerns_storage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    code.is_some_and(|code| {
        !matches!(code, ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: std::ffi::c_int) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
    }

    #[test]
    fn reports_failures_of_the_storage_until_the_next_write_succeeds() {
        let health = Health::default();
        health.failed(&failure(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE), &StorageError::broken("journal", "twice"));
        assert_eq!(health.read(), Ok(()));
        let full = StorageError::full("journal", "no room");
        health.failed(&failure(rusqlite::ffi::SQLITE_FULL), &full);
        assert_eq!(health.read(), Err(full));
        health.succeeded();
        assert_eq!(health.read(), Ok(()));
    }
}
