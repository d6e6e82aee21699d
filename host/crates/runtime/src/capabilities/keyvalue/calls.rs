//! The calls to the store, each with its place in the record of the delivery.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::KeyValueCapability;
use crate::capabilities::delivery::CallEffect;
use modhost_core::limits::Resource;
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::keyvalue::{
    Bucket, Change, Changed, Entry, KeyValue, MAX_BATCH, StoreError, Value, check_batch, check_key,
};

type Result<T> = std::result::Result<T, CallError>;

/// How many keys a page has at the most: with the longest keys there are, a megabyte.
const PAGE: usize = MAX_BATCH;

/// A page of keys, as it is recorded.
#[derive(Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) keys: Vec<String>,
    /// The last key, if there are more behind it.
    pub(super) cursor: Option<String>,
}

/// What became of a swap, as it is recorded.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Swapped {
    Done,
    /// Something else stands there by now.
    Stale(Option<Entry>),
}

impl KeyValueCapability {
    /// A bucket of the module and the tenant; nothing is asked of the store for it.
    pub(super) fn open(&self, name: String) -> Result<Bucket> {
        Ok(Bucket::new(self.delivery.space(), name).map_err(call_error)?)
    }

    pub(super) async fn get(&self, bucket: &Bucket, key: String) -> Result<Option<Vec<u8>>> {
        check_key(&key).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "key": key });
        let value: Option<Value> = self
            .read("keyvalue.get", arguments, bucket, move |store, bucket| async move {
                Ok(entry(&*store, &bucket, key).await.map_err(call_error)?.map(|entry| entry.value))
            })
            .await?;
        Ok(value.map(|value| value.0))
    }

    pub(super) async fn exists(&self, bucket: &Bucket, key: String) -> Result<bool> {
        check_key(&key).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "key": key });
        self.read("keyvalue.exists", arguments, bucket, move |store, bucket| async move {
            Ok(entry(&*store, &bucket, key).await.map_err(call_error)?.is_some())
        })
        .await
    }

    pub(super) async fn get_many(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        check_batch(keys.len()).map_err(call_error)?;
        keys.iter().try_for_each(|key| check_key(key)).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "keys": keys });
        let asked = keys.clone();
        let values: Vec<Option<Value>> = self
            .read("keyvalue.get-many", arguments, bucket, move |store, bucket| async move {
                let entries = store.get(&bucket, asked).await.map_err(call_error)?;
                Ok(entries.into_iter().map(|entry| entry.map(|entry| entry.value)).collect())
            })
            .await?;
        Ok(keys.into_iter().zip(values).map(|(key, value)| Some((key, value?.0))).collect())
    }

    pub(super) async fn list_keys(&self, bucket: &Bucket, cursor: Option<String>) -> Result<Page> {
        let arguments = json!({ "bucket": bucket.name(), "cursor": cursor });
        self.read("keyvalue.list-keys", arguments, bucket, move |store, bucket| async move {
            // One more than is told, to know whether there are more.
            let most = u32::try_from(PAGE + 1).unwrap_or(u32::MAX);
            let mut keys: Vec<String> =
                store.keys(&bucket, cursor, most).await.map_err(call_error)?.into_iter().map(|info| info.key).collect();
            let more = keys.len() > PAGE;
            keys.truncate(PAGE);
            let cursor = if more { keys.last().cloned() } else { None };
            Ok(Page { keys, cursor })
        })
        .await
    }

    /// What stands under a key, for a swap.
    pub(super) async fn look(&self, bucket: &Bucket, key: &str) -> Result<Option<Entry>> {
        check_key(key).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "key": key });
        let key = key.to_owned();
        self.read("keyvalue.cas.new", arguments, bucket, move |store, bucket| async move {
            Ok(entry(&*store, &bucket, key).await.map_err(call_error)?)
        })
        .await
    }

    /// Sets or deletes.
    pub(super) async fn change(&self, import: &'static str, bucket: &Bucket, change: Change) -> Result<()> {
        self.write(import, bucket, change, |_| Ok(())).await
    }

    pub(super) async fn increment(&self, bucket: &Bucket, key: String, delta: i64) -> Result<i64> {
        let change = Change::Increment { key, delta };
        self.write("keyvalue.increment", bucket, change, |changed| match changed {
            Changed::Counted(count) => Ok(count),
            Changed::Done | Changed::Stale(_) => Err(other_answer("keyvalue.increment")),
        })
        .await
    }

    /// Puts a value under a key if what was seen there still stands there.
    pub(super) async fn swap(
        &self,
        bucket: &Bucket,
        key: &str,
        seen: Option<Entry>,
        value: Vec<u8>,
    ) -> Result<Swapped> {
        let change = Change::Swap { key: key.to_owned(), expected: seen.map(|entry| entry.version), value };
        self.write("keyvalue.swap", bucket, change, |changed| match changed {
            Changed::Done => Ok(Swapped::Done),
            Changed::Stale(seen) => Ok(Swapped::Stale(seen)),
            Changed::Counted(_) => Err(other_answer("keyvalue.swap")),
        })
        .await
    }

    async fn read<T, F>(
        &self,
        import: &'static str,
        arguments: Json,
        bucket: &Bucket,
        read: impl FnOnce(Arc<dyn KeyValue>, Bucket) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let bucket = bucket.clone();
        self.delivery.prepare(CallEffect::Read, import, &arguments)?.store(move |store, _| read(store, bucket)).await
    }

    async fn write<T>(
        &self,
        import: &'static str,
        bucket: &Bucket,
        change: Change,
        answer: impl FnOnce(Changed) -> Result<T> + Send + 'static,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        change.check().map_err(call_error)?;
        let (bucket, quota) = (bucket.clone(), self.delivery.limits().get(Resource::KeyValue));
        let pending = self.delivery.prepare(CallEffect::Store, import, &arguments(&bucket, &change))?;
        let make = move |store: Arc<dyn KeyValue>, once: String| async move {
            answer(store.change(&bucket, change, quota, &once).await.map_err(call_error)?)
        };
        pending.store(make).await
    }
}

/// A change as it is recorded.
fn arguments(bucket: &Bucket, change: &Change) -> Json {
    let bucket = bucket.name();
    let value = |value: &Vec<u8>| Value(value.clone());
    match change {
        Change::Set(entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, it)| (key, value(it))).collect();
            json!({ "bucket": bucket, "entries": entries })
        }
        Change::Delete(keys) => json!({ "bucket": bucket, "keys": keys }),
        Change::Increment { key, delta } => json!({ "bucket": bucket, "key": key, "delta": delta }),
        Change::Swap { key, expected, value: it } => {
            json!({ "bucket": bucket, "key": key, "expected": expected, "value": value(it) })
        }
    }
}

async fn entry(store: &dyn KeyValue, bucket: &Bucket, key: String) -> modhost_storage::keyvalue::Result<Option<Entry>> {
    Ok(store.get(bucket, vec![key]).await?.pop().flatten())
}

/// The store said something it never says to this.
fn other_answer(import: &str) -> CallError {
    CallError::new(ErrorKind::Unavailable, format!("the store has no answer to `{import}`"))
}

/// Maps an error of the store to one for the module. Details of the host's disk are for operators: they go to the log.
pub(super) fn call_error(error: StoreError) -> CallError {
    match error {
        StoreError::Refused(why) => CallError::new(ErrorKind::Invalid, why),
        StoreError::Full(_) | StoreError::Broken(_) | StoreError::Unusable(_) => {
            tracing::error!("{error}");
            let text = "the host's key-value store can't be used at the moment; the host's log says why";
            CallError::new(ErrorKind::Unavailable, text)
        }
    }
}
