//! The key-value store: values that modules keep from one event to the next.
//!
//! [`KeyValue`] can be implemented by several engines. It knows nothing of WebAssembly or the journal. Buckets hold values by
//! key. The buckets of a [`Space`] belong to one module for one tenant, and nobody else reads them. The values of a module
//! that is removed are kept: the module may come back.

mod dry_run;
mod limits;
mod sqlite;
mod types;

use async_trait::async_trait;

use crate::error::StorageError;
use modhost_core::limits::Limit;

pub use dry_run::DryRunStore;
pub use limits::{MAX_BATCH, MAX_BUCKETS, MAX_KEY, MAX_KEYS, MAX_READ, MAX_VALUE};
pub use limits::{check_batch, check_key};
pub use sqlite::Sqlite;
pub use sqlite::accept_loss;
pub use types::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, Space, Value, Version};

/// The result of an operation on the store.
pub type Result<T> = std::result::Result<T, KeyValueError>;

/// Why the store rejects an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// The operation exceeds a limit or does not fit the stored value: repeated, it is rejected again.
    #[error("{0}")]
    Refused(String),
    /// The storage cannot do it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A store of values.
#[async_trait]
pub trait KeyValue: Send + Sync + 'static {
    /// Returns the entries of keys, in the order of the keys; none for a key without a value. Every change that has returned
    /// is visible.
    ///
    /// # Errors
    ///
    /// [`KeyValueError::Refused`] if the values together are larger than [`MAX_READ`].
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>>;

    /// Returns up to `limit` keys of a bucket after `after`, ordered by their bytes; none for an unknown bucket.
    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>>;

    /// Makes a change, completely or not at all; it is durable when this returns. `quota`, a limit of
    /// [`Resource::KeyValue`](modhost_core::limits::Resource), is the maximum size of the keys and values of the space after
    /// the change, in bytes. A change that makes the space smaller is always made.
    ///
    /// `once` names the change. A change of this name that was made before is not made again: it returns its earlier answer
    /// until [`KeyValue::answered`] is called.
    ///
    /// # Errors
    ///
    /// [`KeyValueError::Refused`] if the change would exceed the quota, [`MAX_KEYS`] or [`MAX_BUCKETS`], or increment a value
    /// that is no number.
    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, once: &str) -> Result<Changed>;

    /// Allows the store to forget the name of a change: nobody will ask for it again. Returns at once.
    fn answered(&self, once: &str);

    /// Returns the buckets of a space, ordered by name. A bucket exists as long as it has a key.
    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>>;

    /// Writes everything out and closes the store. No operation succeeds after this.
    async fn close(&self) -> Result<()>;
}
