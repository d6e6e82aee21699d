//! Support for the tests: a store in a temporary directory, and shorthands for its operations.

use std::path::Path;

use modhost_core::limits::{Limit, LimitSource};
use modhost_storage::error::StorageErrorKind;
use modhost_storage::keyvalue::{Bucket, Change, Changed, KeyValue, KeyValueError, Result, Space, Sqlite};
use tempfile::TempDir;

/// A quota that no test exceeds.
pub const UNLIMITED: Limit = quota(1 << 40);

/// A quota in bytes that the module's settings set.
pub const fn quota(amount: u64) -> Limit {
    Limit { amount, set_by: LimitSource::Module }
}

/// A store in a temporary directory.
pub struct TestStore {
    pub directory: TempDir,
    pub store: Sqlite,
}

impl TestStore {
    pub async fn new() -> Self {
        let directory = TempDir::new().expect("cannot create a temporary directory");
        let store = open(directory.path()).await;
        Self { directory, store }
    }

    /// Closes the store and opens it again.
    pub async fn reopened(self) -> Self {
        self.store.close().await.expect("cannot close the store");
        drop(self.store);
        let store = open(self.directory.path()).await;
        Self { directory: self.directory, store }
    }
}

impl std::ops::Deref for TestStore {
    type Target = Sqlite;

    fn deref(&self) -> &Sqlite {
        &self.store
    }
}

/// Opens the store in a directory.
pub async fn open(directory: &Path) -> Sqlite {
    Sqlite::open(directory.to_owned()).await.expect("cannot open the store")
}

pub fn space(tenant: &str, module: &str) -> Space {
    Space { tenant: tenant.into(), module: module.into() }
}

/// Returns a bucket of module `Echo` for tenant `acme`.
pub fn bucket(name: &str) -> Bucket {
    Bucket::new(space("acme", "Echo"), name.to_owned()).expect("invalid bucket name")
}

/// Returns a new idempotency key.
pub fn once() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("change-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub async fn set(store: &Sqlite, bucket: &Bucket, key: &str, value: impl Into<Vec<u8>>) -> Result<Changed> {
    store.change(bucket, Change::Set(vec![(key.to_owned(), value.into())]), UNLIMITED, &once()).await
}

pub async fn get(store: &Sqlite, bucket: &Bucket, key: &str) -> Option<Vec<u8>> {
    let found = store.get(bucket, vec![key.to_owned()]).await.expect("cannot read the store");
    found.into_iter().next().flatten().map(|entry| entry.value.0)
}

/// Returns the reason of a refusal.
pub fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(KeyValueError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// Returns the kind and text of a storage error.
pub fn storage_error<T: std::fmt::Debug>(result: Result<T>) -> (StorageErrorKind, String) {
    match result {
        Err(KeyValueError::Storage(error)) => (error.kind, error.to_string()),
        other => panic!("not a storage error: {other:?}"),
    }
}
