//! The store in one SQLite file, for one host.
//!
//! One thread writes and commits what waits together; what is only read is read apart from it. A person can open the
//! file and look, also while the host runs; [`schema`] says what stands where.

mod reading;
mod schema;
mod tables;
mod writer;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;

use self::schema::STORE;
use self::writer::{WriteJob, Writer};
use super::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space, StoreError};
use crate::sqlite::{Database, Readers, StorageError};
use modhost_core::limits::Limit;

/// The store in one SQLite file. Dropping it without [`KeyValue::close`] loses nothing that was answered.
pub struct Sqlite {
    writer: Writer,
    readers: Readers,
}

impl Sqlite {
    /// Opens the store in a directory, or makes an empty one there. The directory has to be this host's: whose it is, the
    /// journal's lock says.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] when it was written by a newer version, or what is there is damaged or no store at all:
    /// it is left as it is then.
    pub async fn open(directory: PathBuf) -> Result<Self> {
        let database = Database::new(&STORE, directory);
        let opening = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(database.directory()).map_err(|error| database.unreachable(&error))?;
            database.make_ready()?;
            Ok(Self { writer: Writer::start(database.clone())?, readers: Readers::new(database) })
        });
        opening.await.map_err(|error| StoreError::Broken(format!("opening it broke off: {error}")))?
    }
}

/// Gives up what is missing from the store in a directory. Answers with what that is; none if nothing is.
pub fn accept_loss(directory: &Path) -> Result<Option<String>> {
    Ok(Database::new(&STORE, directory.to_owned()).accept_loss()?)
}

#[async_trait]
impl KeyValue for Sqlite {
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>> {
        let bucket = bucket.clone();
        self.readers.read(move |connection| reading::get(connection, &bucket, &keys)).await?
    }

    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>> {
        let bucket = bucket.clone();
        Ok(self.readers.read(move |connection| reading::keys(connection, &bucket, after.as_deref(), limit)).await?)
    }

    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, once: &str) -> Result<Changed> {
        let (bucket, once) = (bucket.clone(), once.to_owned());
        self.writer.ask(WriteJob { bucket, change, quota, once, at: millis(SystemTime::now()) }).await
    }

    fn answered(&self, once: &str) {
        self.writer.forget(once);
    }

    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>> {
        let space = space.clone();
        Ok(self.readers.read(move |connection| reading::buckets(connection, &space)).await?)
    }

    async fn close(&self) -> Result<()> {
        self.readers.close().await;
        self.writer.close().await
    }
}

impl From<StorageError> for StoreError {
    fn from(trouble: StorageError) -> Self {
        match trouble {
            StorageError::Full(text) => Self::Full(text),
            StorageError::Broken(text) => Self::Broken(text),
            StorageError::Unusable(text) => Self::Unusable(text),
        }
    }
}

/// A time as it is stored.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
