//! The error type of all storage engines.

use std::fmt;

/// An error of a storage engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageError {
    /// The name of the store, as used in messages: `journal`.
    pub store: &'static str,
    /// The kind of error.
    pub kind: StorageErrorKind,
    /// The failure, its location, and how to fix it.
    pub detail: String,
}

/// The kind of a [`StorageError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// No space is left on the disk or in a queue. Nothing was written; earlier writes are intact.
    Full,
    /// The storage is temporarily unavailable; a retry may succeed.
    Unavailable,
    /// The operation failed, for example because of an I/O error or because the store is closed.
    Broken,
    /// This version cannot use the data on disk: it is damaged, newer, or belongs to another program.
    Unusable,
}

impl StorageError {
    /// Creates an error of a store.
    pub fn new(store: &'static str, kind: StorageErrorKind, detail: impl Into<String>) -> Self {
        Self { store, kind, detail: detail.into() }
    }

    /// Creates a [`StorageErrorKind::Full`] error.
    pub fn full(store: &'static str, detail: impl Into<String>) -> Self {
        Self::new(store, StorageErrorKind::Full, detail)
    }

    /// Creates a [`StorageErrorKind::Unavailable`] error.
    pub fn unavailable(store: &'static str, detail: impl Into<String>) -> Self {
        Self::new(store, StorageErrorKind::Unavailable, detail)
    }

    /// Creates a [`StorageErrorKind::Broken`] error.
    pub fn broken(store: &'static str, detail: impl Into<String>) -> Self {
        Self::new(store, StorageErrorKind::Broken, detail)
    }

    /// Creates a [`StorageErrorKind::Unusable`] error.
    pub fn unusable(store: &'static str, detail: impl Into<String>) -> Self {
        Self::new(store, StorageErrorKind::Unusable, detail)
    }

    /// Creates the error for an operation on a closed store.
    pub fn closed(store: &'static str) -> Self {
        Self::broken(store, "it was closed")
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, kind, detail } = self;
        match kind {
            StorageErrorKind::Full => write!(f, "the {store} is full: {detail}"),
            StorageErrorKind::Unavailable => write!(f, "the {store} is unavailable: {detail}"),
            StorageErrorKind::Broken => write!(f, "the {store} fails: {detail}"),
            StorageErrorKind::Unusable => f.write_str(detail),
        }
    }
}

impl std::error::Error for StorageError {}
