//! Whether the journal can be written: what the last write to the disk came to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ErrorCode;

use crate::journal::{JournalError, Result};

/// The outcome of the last write. Cheap to clone; the writer changes it, anyone reads it.
#[derive(Clone, Default)]
pub(super) struct Health(Arc<Mutex<Option<JournalError>>>);

impl Health {
    /// The last write reached the disk, or why it didn't.
    pub(super) fn read(&self) -> Result<()> {
        self.lock().clone().map_or(Ok(()), Err)
    }

    /// A write reached the disk.
    pub(super) fn succeeded(&self) {
        *self.lock() = None;
    }

    /// A write failed. What is wrong with one job alone says nothing about the others.
    pub(super) fn failed(&self, error: &rusqlite::Error, explained: &JournalError) {
        if is_of_the_storage(error) {
            *self.lock() = Some(explained.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<JournalError>> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error is about the file and its disk, rather than about what was to be written.
fn is_of_the_storage(error: &rusqlite::Error) -> bool {
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
    fn only_failures_of_the_storage_count_and_the_next_write_clears_them() {
        let health = Health::default();
        let full = JournalError::Full("no room".into());
        health.failed(&failure(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE), &JournalError::Broken("twice".into()));
        assert!(health.read().is_ok());
        health.failed(&failure(rusqlite::ffi::SQLITE_FULL), &full);
        assert!(matches!(health.read(), Err(JournalError::Full(_))));
        health.succeeded();
        assert!(health.read().is_ok());
    }
}
