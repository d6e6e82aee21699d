//! What keeps a job of the writer from being done.

use crate::journal::JournalError;
use crate::sqlite::Trouble;

/// Why a job of the writer was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite failed: the transaction is lost, and with it what the jobs before it did.
    Storage(rusqlite::Error),
    /// The job is not to be done, and touched nothing.
    Refused(JournalError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<Trouble> for JournalError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full(text) => Self::Full(text),
            Trouble::Broken(text) => Self::Broken(text),
            Trouble::Unusable(text) => Self::Unusable(text),
        }
    }
}
