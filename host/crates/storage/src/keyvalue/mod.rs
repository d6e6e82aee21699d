//! The key-value store: values that modules keep from one event to the next.
//!
//! Several engines can implement [`KeyValue`], which does not depend on WebAssembly or the journal. A bucket contains
//! values by key. The buckets of a [`Space`] belong to one module for one tenant, and no other module or tenant can
//! read them. The values of a removed module are kept, because the module may be added again.

mod dry_run;
mod limits;
mod postgres;
mod sharded;
mod sqlite;
mod types;

use async_trait::async_trait;

use crate::error::StorageError;
use modhost_core::limits::Limit;

pub use dry_run::DryRunStore;
pub use limits::{MAX_BATCH, MAX_BUCKETS, MAX_KEY, MAX_KEYS, MAX_READ, MAX_VALUE};
pub use limits::{check_batch, check_key};
pub(crate) use postgres::POSTGRES_TABLES;
pub use postgres::Postgres;
pub use sharded::Sharded;
pub(crate) use sqlite::SQLITE_TABLES;
pub use sqlite::Sqlite;
pub use sqlite::accept_loss;
pub use types::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, Space, Value, Version};

/// The result of an operation on the store.
pub type Result<T> = std::result::Result<T, KeyValueError>;

/// An error of an operation on the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// The operation exceeds a limit or does not fit the stored value. A retry would be rejected as well.
    #[error("{0}")]
    Refused(String),
    /// The storage engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A store of values.
#[async_trait]
pub trait KeyValue: Send + Sync + 'static {
    /// Returns the entries of keys, in the order of the keys; `None` for a key without a value. Every change that has
    /// returned is visible.
    ///
    /// # Errors
    ///
    /// [`KeyValueError::Refused`] if the values together are larger than [`MAX_READ`].
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>>;

    /// Returns up to `limit` keys of a bucket after `after`, ordered by their bytes; an empty list for an unknown
    /// bucket.
    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>>;

    /// Applies a change atomically and durably. `quota`, a limit of
    /// [`Resource::KeyValue`](modhost_core::limits::Resource), is the maximum size of the keys and values of the space
    /// after the change, in bytes. A change that does not enlarge the space is always allowed.
    ///
    /// `idempotency_key` identifies the change. If a change with this key was applied before, it is not applied again;
    /// the call returns the earlier answer. [`KeyValue::forget_key`] ends this.
    ///
    /// # Errors
    ///
    /// [`KeyValueError::Refused`] if the change would exceed the quota, [`MAX_KEYS`] or [`MAX_BUCKETS`], or increment a
    /// value that is not a number.
    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, idempotency_key: &str) -> Result<Changed>;

    /// Allows the store to forget an idempotency key, because the change will not be requested again. Returns at once.
    fn forget_key(&self, idempotency_key: &str);

    /// Returns the buckets of a space, ordered by name. A bucket exists as long as it has a key.
    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>>;

    /// Completes queued writes and closes the store. Every later operation fails.
    async fn close(&self) -> Result<()>;
}
