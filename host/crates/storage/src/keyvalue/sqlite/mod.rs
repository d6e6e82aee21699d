//! The store in one SQLite file, for one host.
//!
//! One thread commits all queued changes in one transaction. Reads run concurrently on other connections. Operators can
//! query the file with SQLite tools while the host runs; [`schema`] documents the tables.

mod reading;
mod schema;
mod store;
mod tables;

pub(crate) use schema::STORE as SQLITE_TABLES;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;

use self::schema::STORE;
use self::store::{ChangeRequest, Store};
use super::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space};
use crate::sqlite::{Database, JobClass, Readers, Writer};
use modhost_core::clock::to_millis;
use modhost_core::limits::Limit;

/// A store in one SQLite file. Dropping it without [`KeyValue::close`] loses no acknowledged change.
pub struct Sqlite {
    writer: Writer<Store>,
    readers: Readers,
}

impl Sqlite {
    /// Opens the store in a directory, or creates an empty one. The caller must hold the lock of the directory, which
    /// the journal acquires.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the file is damaged, was written by
    /// a newer version, or is not a store. The file is left unchanged then.
    pub async fn open(directory: PathBuf) -> Result<Self> {
        let database = Database::new(&STORE, directory);
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(opened.directory()).map_err(|error| opened.directory_error(&error))?;
            opened.create_or_migrate()?;
            Ok(Self { writer: store::start_writer(opened.clone())?, readers: Readers::new(opened) })
        });
        opening.await.map_err(|error| database.task_failed(&error))?
    }
}

/// Accepts the loss of the changes that are missing from the store in a directory. Returns a description of them;
/// `None` if nothing is missing.
pub fn accept_loss(directory: &Path) -> Result<Option<String>> {
    Ok(Database::new(&STORE, directory.to_owned()).accept_loss()?)
}

#[async_trait]
impl KeyValue for Sqlite {
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>> {
        let (bucket, tenant) = (bucket.clone(), &bucket.space.tenant);
        self.readers.read_for(tenant, move |connection| reading::get(connection, &bucket, &keys)).await?
    }

    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>> {
        let (bucket, tenant) = (bucket.clone(), &bucket.space.tenant);
        Ok(self
            .readers
            .read_for(tenant, move |connection| reading::keys(connection, &bucket, after.as_deref(), limit))
            .await?)
    }

    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, idempotency_key: &str) -> Result<Changed> {
        let (bucket, idempotency_key, at) = (bucket.clone(), idempotency_key.to_owned(), to_millis(SystemTime::now()));
        let request = ChangeRequest { bucket, change, quota, idempotency_key, at };
        let class = JobClass::of_module(&request.bucket.space.tenant, request.change.bytes());
        self.writer.ask_in(class, move |store| store.change(&request)).await
    }

    fn forget_key(&self, idempotency_key: &str) {
        // If the queue is full, the note is dropped, and the key is removed once it is old.
        let idempotency_key = idempotency_key.to_owned();
        self.writer.note(move |store| store.forget_key(idempotency_key));
    }

    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>> {
        let space = space.clone();
        Ok(self.readers.read(move |connection| reading::buckets(connection, &space)).await?)
    }

    async fn close(&self) -> Result<()> {
        self.readers.close().await;
        Ok(self.writer.close().await?)
    }
}
