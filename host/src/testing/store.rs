//! The key-value store of a test: the real one, in a folder of its own that is gone afterwards; opened when it is needed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use modhost_core::limits::{Limit, SetBy};
use modhost_storage::error::StorageError;
use modhost_storage::keyvalue::{
    Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space, Sqlite,
};

/// What stands in a store, by bucket and key.
pub(super) type Content = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// The store of one test.
pub(super) struct Store {
    space: Space,
    content: Content,
    opened: OnceCell<Opened>,
}

/// What a test begins with, nobody counts.
const NO_LIMIT: Limit = Limit { amount: u64::MAX, set_by: SetBy::Module };

struct Opened {
    store: Sqlite,
    /// Removed when the test is over.
    _folder: TempDir,
}

impl Store {
    /// A store with this in it.
    pub fn new(space: Space, content: Content) -> Self {
        Self { space, content, opened: OnceCell::new() }
    }

    /// What stands in it now.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub async fn content(&self) -> Result<BTreeMap<String, BTreeMap<String, Json>>> {
        if self.content.is_empty() && !self.opened.initialized() {
            return Ok(BTreeMap::new());
        }
        let mut content = BTreeMap::new();
        for totals in self.buckets(&self.space).await? {
            let bucket = Bucket::new(self.space.clone(), totals.name.clone())?;
            let keys = self.keys(&bucket, None, u32::MAX).await?;
            let mut values = BTreeMap::new();
            for KeyInfo { key, .. } in keys {
                if let Some(entry) = self.get(&bucket, vec![key.clone()]).await?.pop().flatten() {
                    values.insert(key, serde_json::to_value(entry.value).unwrap_or_default());
                }
            }
            content.insert(totals.name, values);
        }
        Ok(content)
    }

    async fn opened(&self) -> Result<&Sqlite> {
        let opened = self.opened.get_or_try_init(|| async {
            let folder =
                tempfile::tempdir().map_err(|error| StorageError::broken("key-value store", error.to_string()))?;
            let store = Sqlite::open(folder.path().to_owned()).await?;
            for (name, values) in &self.content {
                let bucket = Bucket::new(self.space.clone(), name.clone())?;
                for (key, value) in values {
                    let set = Change::Set(vec![(key.clone(), value.clone())]);
                    set.check()?;
                    store.change(&bucket, set, NO_LIMIT, &format!("at first: {name} {key}")).await?;
                }
            }
            Ok(Opened { store, _folder: folder })
        });
        opened.await.map(|opened| &opened.store)
    }
}

#[async_trait]
impl KeyValue for Store {
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>> {
        self.opened().await?.get(bucket, keys).await
    }

    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>> {
        self.opened().await?.keys(bucket, after, limit).await
    }

    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, once: &str) -> Result<Changed> {
        self.opened().await?.change(bucket, change, quota, once).await
    }

    fn answered(&self, once: &str) {
        if let Some(opened) = self.opened.get() {
            opened.store.answered(once);
        }
    }

    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>> {
        self.opened().await?.buckets(space).await
    }

    async fn close(&self) -> Result<()> {
        match self.opened.get() {
            Some(opened) => opened.store.close().await,
            None => Ok(()),
        }
    }
}
