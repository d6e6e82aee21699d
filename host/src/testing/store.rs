//! The key-value store of a test: the real store, in a temporary folder, opened on first use.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use modhost_core::limits::{Limit, LimitSource};
use modhost_storage::error::StorageError;
use modhost_storage::keyvalue::{
    Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space, Sqlite,
};

/// The content of a store, by bucket and key.
pub(super) type Content = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// The store of one test.
pub(super) struct TestStore {
    space: Space,
    content: Content,
    opened: OnceCell<OpenStore>,
}

/// The limit for initial content.
const NO_LIMIT: Limit = Limit { amount: u64::MAX, set_by: LimitSource::Module };

struct OpenStore {
    store: Sqlite,
    /// Removed when dropped.
    _folder: TempDir,
}

impl TestStore {
    /// Returns a store with this content.
    pub fn new(space: Space, content: Content) -> Self {
        Self { space, content, opened: OnceCell::new() }
    }

    /// Returns the current content.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
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
                    store.change(&bucket, set, NO_LIMIT, &format!("initial: {name} {key}")).await?;
                }
            }
            Ok(OpenStore { store, _folder: folder })
        });
        opened.await.map(|opened| &opened.store)
    }
}

#[async_trait]
impl KeyValue for TestStore {
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>> {
        self.opened().await?.get(bucket, keys).await
    }

    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>> {
        self.opened().await?.keys(bucket, after, limit).await
    }

    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, idempotency_key: &str) -> Result<Changed> {
        self.opened().await?.change(bucket, change, quota, idempotency_key).await
    }

    fn forget_key(&self, idempotency_key: &str) {
        if let Some(opened) = self.opened.get() {
            opened.store.forget_key(idempotency_key);
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
