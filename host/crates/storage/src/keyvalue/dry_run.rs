//! The store for dry runs. Changes have no effect, and every read is rejected: a dry run has only recorded values,
//! which the call log replays.

use async_trait::async_trait;

use super::limits::reject;
use super::{Bucket, BucketTotals, Change, Changed, Entry, KeyInfo, KeyValue, Result, Space};
use modhost_core::limits::Limit;

/// A store without contents, for dry runs.
pub struct DryRunStore;

fn not_recorded<T>(item: &str) -> Result<T> {
    reject(format!("a dry run has no {item} that was not recorded"))
}

#[async_trait]
impl KeyValue for DryRunStore {
    async fn get(&self, _: &Bucket, _: Vec<String>) -> Result<Vec<Option<Entry>>> {
        not_recorded("value")
    }

    async fn keys(&self, _: &Bucket, _: Option<String>, _: u32) -> Result<Vec<KeyInfo>> {
        not_recorded("list of keys")
    }

    async fn change(&self, _: &Bucket, change: Change, _: Limit, _: &str) -> Result<Changed> {
        match change {
            Change::Increment { .. } => not_recorded("count"),
            Change::Set(_) | Change::Delete(_) | Change::Swap { .. } => Ok(Changed::Done),
        }
    }

    fn forget_key(&self, _: &str) {}

    async fn buckets(&self, _: &Space) -> Result<Vec<BucketTotals>> {
        not_recorded("list of buckets")
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
