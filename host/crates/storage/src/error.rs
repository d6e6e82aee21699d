//! The error that every storage engine reports.

use std::fmt;

/// Why a storage engine cannot do an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageError {
    /// The store, for people: `journal`.
    pub store: &'static str,
    /// The kind of failure.
    pub kind: StorageErrorKind,
    /// What happened, where, and what to do about it.
    pub detail: String,
}

/// The kinds of failure of a storage engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// No space is left: nothing was written, and nothing that was written is lost.
    Full,
    /// The storage cannot be reached at the moment; the same operation may succeed later.
    Unavailable,
    /// The storage fails.
    Broken,
    /// This version cannot use the data on disk.
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

    /// Creates the error of an operation on a store that was closed.
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
