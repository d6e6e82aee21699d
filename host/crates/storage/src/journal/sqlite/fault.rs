//! What keeps a job of the writer from being done.

use std::any::Any;

use crate::journal::JournalError;
use crate::sqlite::StorageError;

/// Why a job of the writer was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite failed: the transaction is lost, and with it what the jobs before it did.
    Storage(rusqlite::Error),
    /// The job is not to be done, and touched nothing.
    Refused(JournalError),
}

impl Fault {
    /// A job panicked: what it did so far is lost with its transaction.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let text = format!("internal error in the host: {text}; please report it");
        // Of SQLite's own errors the one that holds any text.
        Self::Storage(rusqlite::Error::ToSqlConversionFailure(text.into()))
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<StorageError> for JournalError {
    fn from(trouble: StorageError) -> Self {
        match trouble {
            StorageError::Full(text) => Self::Full(text),
            StorageError::Broken(text) => Self::Broken(text),
            StorageError::Unusable(text) => Self::Unusable(text),
        }
    }
}
