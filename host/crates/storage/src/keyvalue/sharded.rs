//! Key-value stores in several databases, each with the values of some tenants.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;

use super::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space};
use crate::shards::Shards;
use modhost_core::event::Name;
use modhost_core::limits::Limit;

/// Key-value stores by tenant.
pub struct Sharded(Shards<dyn KeyValue>);

impl Sharded {
    /// Creates a store from a main one and further ones with their tenants.
    pub fn new(main: Arc<dyn KeyValue>, others: impl IntoIterator<Item = (Arc<dyn KeyValue>, Vec<Name>)>) -> Self {
        Self(Shards::new(main, others))
    }
}

#[async_trait]
impl KeyValue for Sharded {
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<Entry>>> {
        self.0.of(&bucket.space.tenant).get(bucket, keys).await
    }

    async fn keys(&self, bucket: &Bucket, after: Option<String>, limit: u32) -> Result<Vec<KeyInfo>> {
        self.0.of(&bucket.space.tenant).keys(bucket, after, limit).await
    }

    async fn change(&self, bucket: &Bucket, change: Change, quota: Limit, idempotency_key: &str) -> Result<Changed> {
        self.0.of(&bucket.space.tenant).change(bucket, change, quota, idempotency_key).await
    }

    fn forget_key(&self, idempotency_key: &str) {
        // Keys name no tenant, and a store that doesn't know one ignores it.
        self.0.all().iter().for_each(|store| store.forget_key(idempotency_key));
    }

    async fn buckets(&self, space: &Space) -> Result<Vec<BucketTotals>> {
        self.0.of(&space.tenant).buckets(space).await
    }

    async fn close(&self) -> Result<()> {
        join_all(self.0.all().iter().map(|store| store.close())).await.into_iter().collect()
    }
}
