//! A store for dry runs: it writes nothing, and has no value that was not recorded.

use async_trait::async_trait;

use super::limits::refuse;
use super::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space};
use modhost_core::limits::Limit;

/// The store of a dry run.
pub struct DryRunStore;

fn not_there<T>(what: &str) -> Result<T> {
    refuse(format!("a dry run has no {what} that was not recorded"))
}

#[async_trait]
impl KeyValue for DryRunStore {
    async fn get(&self, _: &Bucket, _: Vec<String>) -> Result<Vec<Option<Entry>>> {
        not_there("value")
    }

    async fn keys(&self, _: &Bucket, _: Option<String>, _: u32) -> Result<Vec<KeyInfo>> {
        not_there("list of keys")
    }

    async fn change(&self, _: &Bucket, change: Change, _: Limit, _: &str) -> Result<Changed> {
        match change {
            Change::Increment { .. } => not_there("count"),
            Change::Set(_) | Change::Delete(_) | Change::Swap { .. } => Ok(Changed::Done),
        }
    }

    fn answered(&self, _: &str) {}

    async fn buckets(&self, _: &Space) -> Result<Vec<BucketTotals>> {
        not_there("list of buckets")
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
