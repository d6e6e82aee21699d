//! The key-value store: what modules keep from one event to the next.
//!
//! [`KeyValue`] is written so that different engines can stand behind it. It knows nothing of WebAssembly and nothing of
//! the journal. Values stand under keys in buckets, and the buckets of a [`Space`], those of one module for one tenant,
//! are nobody else's. What a module is no longer there for is kept: it may come back.

mod dry_run;
mod limits;
mod sqlite;
mod types;

use async_trait::async_trait;

use modhost_core::limits::Limit;

pub use dry_run::DryRunStore;
pub use limits::{MAX_BATCH, MAX_BUCKETS, MAX_KEY, MAX_KEYS, MAX_READ, MAX_VALUE};
pub use limits::{check_batch, check_key};
pub use sqlite::Sqlite;
pub use sqlite::accept_loss;
pub use types::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, Space, Value, Version};

/// What an operation of the store ends in.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why the store doesn't do what it is asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// What is asked goes beyond a limit, or doesn't fit what is there: asked again, it is refused again.
    #[error("{0}")]
    Refused(String),
    /// There is no room on the disk: nothing was written, and nothing that was written is lost.
    #[error("the key-value store is full: {0}")]
    Full(String),
    /// The storage behind it fails.
    #[error("the key-value store fails: {0}")]
    Broken(String),
    /// What is on disk is not a store this version can use.
    #[error("{0}")]
    Unusable(String),
}

/// Where values are kept.
#[async_trait]
pub trait KeyValue: Send + Sync + 'static {
    /// What stands under keys, in their order; none where nothing does. Whatever a change wrote that has returned is
    /// seen.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when all of it together is more than [`MAX_READ`].
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>>;

    /// The keys of a bucket behind `after`, in the order of their bytes, so many at the most. A bucket that isn't there
    /// has none.
    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>>;

    /// Does a change, whole or not at all; it is on disk when this returns. `quota`, a limit of
    /// [`Resource::KeyValue`](modhost_core::limits::Resource), is how many bytes the keys and values of the space may have after
    /// it, unless it makes them fewer.
    ///
    /// `once` names the change. One that was done under this name before is not done again, and has the answer it had
    /// then, until [`KeyValue::answered`] is called.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when it would go beyond the quota, [`MAX_KEYS`] or [`MAX_BUCKETS`], or is to count
    /// up what is no number.
    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, once: &str) -> Result<Changed>;

    /// Nobody will ask for a change of this name any more. Returns at once.
    fn answered(&self, once: &str);

    /// The buckets of a space, by name. One is there as long as it has a key.
    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>>;

    /// Writes everything out and closes. Nothing may be asked of the store after this.
    async fn close(&self) -> Result<()>;
}
