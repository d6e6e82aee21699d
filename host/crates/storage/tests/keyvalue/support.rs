//! Support for the tests: a store of each engine, and shorthands for its operations.

use std::path::Path;

use modhost_core::limits::{Limit, LimitSource};
use modhost_core::secret::Secret;
use modhost_storage::error::StorageErrorKind;
use modhost_storage::keyvalue::{Bucket, Change, Changed, KeyValue, KeyValueError, Postgres, Result, Space, Sqlite};
use modhost_storage::postgres::Database;
use tempfile::TempDir;

use crate::postgres_server::PostgresServer;

/// A quota that no test exceeds.
pub const UNLIMITED: Limit = quota(1 << 40);

/// A quota in bytes that the module's settings set.
pub const fn quota(amount: u64) -> Limit {
    Limit { amount, set_by: LimitSource::Module }
}

/// A storage engine of the key-value store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Runs each test, an `async fn(Engine)`, with every engine.
macro_rules! on_every_engine {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    super::$test($crate::support::Engine::Sqlite).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    // Without PostgreSQL the test is skipped.
                    if $crate::postgres_server::PostgresServer::shared().is_some() {
                        super::$test($crate::support::Engine::Postgres).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_every_engine;

/// A store in a temporary directory, or in a database of its own.
pub struct TestStore {
    pub directory: TempDir,
    pub store: Box<dyn KeyValue>,
    /// The URL of the database, if it is one of PostgreSQL.
    pub url: Option<String>,
}

impl TestStore {
    pub async fn new(engine: Engine) -> Self {
        let directory = TempDir::new().expect("cannot create a temporary directory");
        let url = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresServer::shared().expect("PostgreSQL is not installed").new_database()),
        };
        let store = open_store(directory.path(), url.as_deref()).await;
        Self { directory, store, url }
    }

    /// Closes the store and opens it again.
    pub async fn reopened(self) -> Self {
        self.store.close().await.expect("cannot close the store");
        drop(self.store);
        let store = open_store(self.directory.path(), self.url.as_deref()).await;
        Self { store, ..self }
    }
}

impl std::ops::Deref for TestStore {
    type Target = dyn KeyValue;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

async fn open_store(directory: &Path, url: Option<&str>) -> Box<dyn KeyValue> {
    match url {
        None => Box::new(open(directory).await),
        Some(url) => Box::new(open_in_postgres(url).await),
    }
}

/// Opens the store in a directory.
pub async fn open(directory: &Path) -> Sqlite {
    Sqlite::open(directory.to_owned()).await.expect("cannot open the store")
}

/// Opens the store in a database, as one of its hosts.
pub async fn open_in_postgres(url: &str) -> Postgres {
    let database = Database::new(&Secret::new(url)).expect("invalid URL");
    Postgres::open(&database).await.expect("cannot open the store")
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

pub async fn set(store: &dyn KeyValue, bucket: &Bucket, key: &str, value: impl Into<Vec<u8>>) -> Result<Changed> {
    store.change(bucket, Change::Set(vec![(key.to_owned(), value.into())]), UNLIMITED, &once()).await
}

pub async fn get(store: &dyn KeyValue, bucket: &Bucket, key: &str) -> Option<Vec<u8>> {
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
