//! The calls to the key-value store: how they are declared, recorded and made.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::KeyValueCapability;
use crate::call_log::{CallEffect, InFlight, RecordedCall};
use crate::capabilities::CallSpec;
use modhost_core::import::Import;
use modhost_core::limits::Resource;
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::keyvalue::{
    Bucket, Change, Changed, Entry, KeyValue, KeyValueError, MAX_BATCH, Value, check_batch, check_key,
};

type Result<T> = std::result::Result<T, CallError>;

const GET: CallSpec = read(Import::KeyValueGet);
const GET_MANY: CallSpec = read(Import::KeyValueGetMany);
const EXISTS: CallSpec = read(Import::KeyValueExists);
const LIST_KEYS: CallSpec = read(Import::KeyValueListKeys);
const CAS_NEW: CallSpec = read(Import::KeyValueCasNew);
pub(super) const SET: CallSpec = change(Import::KeyValueSet);
pub(super) const SET_MANY: CallSpec = change(Import::KeyValueSetMany);
pub(super) const DELETE: CallSpec = change(Import::KeyValueDelete);
pub(super) const DELETE_MANY: CallSpec = change(Import::KeyValueDeleteMany);
const INCREMENT: CallSpec = change(Import::KeyValueIncrement);
const SWAP: CallSpec = change(Import::KeyValueSwap);

/// The calls of the key-value store.
pub(super) const CALLS: [CallSpec; 11] =
    [GET, GET_MANY, EXISTS, LIST_KEYS, CAS_NEW, SET, SET_MANY, DELETE, DELETE_MANY, INCREMENT, SWAP];

const fn read(import: Import) -> CallSpec {
    CallSpec::new(import, CallEffect::Read)
}

const fn change(import: Import) -> CallSpec {
    CallSpec::new(import, CallEffect::Store)
}

/// Maximum number of keys in a page: at most a megabyte with keys of the maximum length.
const PAGE_KEYS: usize = MAX_BATCH;

/// A recorded page of keys.
#[derive(Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) keys: Vec<String>,
    /// The last key, if more keys follow.
    pub(super) cursor: Option<String>,
}

/// The recorded result of a swap.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CasOutcome {
    Done,
    /// The entry has changed; this is the current one.
    Stale(Option<Entry>),
}

impl KeyValueCapability {
    /// Opens a bucket of the module and the tenant, without a call to the store.
    pub(super) fn open(&self, name: String) -> Result<Bucket> {
        Bucket::new(self.delivery.space(), name).map_err(call_error)
    }

    pub(super) async fn get(&self, bucket: &Bucket, key: String) -> Result<Option<Vec<u8>>> {
        check_key(&key).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "key": key });
        let value: Option<Value> = self
            .read(&GET, arguments, bucket, move |store, bucket| async move {
                Ok(entry(&*store, &bucket, key).await.map_err(call_error)?.map(|entry| entry.value))
            })
            .await?;
        Ok(value.map(|value| value.0))
    }

    pub(super) async fn exists(&self, bucket: &Bucket, key: String) -> Result<bool> {
        check_key(&key).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "key": key });
        self.read(&EXISTS, arguments, bucket, move |store, bucket| async move {
            Ok(entry(&*store, &bucket, key).await.map_err(call_error)?.is_some())
        })
        .await
    }

    pub(super) async fn get_many(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        check_batch(keys.len()).map_err(call_error)?;
        keys.iter().try_for_each(|key| check_key(key)).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "keys": keys });
        let requested = keys.clone();
        let values: Vec<Option<Value>> = self
            .read(&GET_MANY, arguments, bucket, move |store, bucket| async move {
                let entries = store.get(&bucket, requested).await.map_err(call_error)?;
                Ok(entries.into_iter().map(|entry| entry.map(|entry| entry.value)).collect())
            })
            .await?;
        Ok(keys.into_iter().zip(values).map(|(key, value)| Some((key, value?.0))).collect())
    }

    pub(super) async fn list_keys(&self, bucket: &Bucket, cursor: Option<String>) -> Result<Page> {
        let arguments = json!({ "bucket": bucket.name(), "cursor": cursor });
        self.read(&LIST_KEYS, arguments, bucket, move |store, bucket| async move {
            // One more than the page has, to detect whether more keys follow.
            let limit = u32::try_from(PAGE_KEYS + 1).unwrap_or(u32::MAX);
            let mut keys: Vec<String> = store
                .keys(&bucket, cursor, limit)
                .await
                .map_err(call_error)?
                .into_iter()
                .map(|info| info.key)
                .collect();
            let has_more = keys.len() > PAGE_KEYS;
            keys.truncate(PAGE_KEYS);
            let cursor = if has_more { keys.last().cloned() } else { None };
            Ok(Page { keys, cursor })
        })
        .await
    }

    /// Reads the entry of a key, for a swap.
    pub(super) async fn read_entry(&self, bucket: &Bucket, key: &str) -> Result<Option<Entry>> {
        check_key(key).map_err(call_error)?;
        let arguments = json!({ "bucket": bucket.name(), "key": key });
        let key = key.to_owned();
        self.read(&CAS_NEW, arguments, bucket, move |store, bucket| async move {
            entry(&*store, &bucket, key).await.map_err(call_error)
        })
        .await
    }

    /// Sets or deletes keys.
    pub(super) async fn change(&self, spec: &CallSpec, bucket: &Bucket, change: Change) -> Result<()> {
        self.write(spec, bucket, change, |_| Ok(())).await
    }

    pub(super) async fn increment(&self, bucket: &Bucket, key: String, delta: i64) -> Result<i64> {
        let change = Change::Increment { key, delta };
        self.write(&INCREMENT, bucket, change, |changed| match changed {
            Changed::Counted(count) => Ok(count),
            Changed::Done | Changed::Stale(_) => Err(other_answer(Import::KeyValueIncrement)),
        })
        .await
    }

    /// Sets a key if its entry is unchanged since `seen`.
    pub(super) async fn swap(
        &self,
        bucket: &Bucket,
        key: &str,
        seen: Option<Entry>,
        value: Vec<u8>,
    ) -> Result<CasOutcome> {
        let change = Change::Swap { key: key.to_owned(), expected: seen.map(|entry| entry.version), value };
        self.write(&SWAP, bucket, change, |changed| match changed {
            Changed::Done => Ok(CasOutcome::Done),
            Changed::Stale(seen) => Ok(CasOutcome::Stale(seen)),
            Changed::Counted(_) => Err(other_answer(Import::KeyValueSwap)),
        })
        .await
    }

    async fn read<T, F>(
        &self,
        spec: &CallSpec,
        arguments: Json,
        bucket: &Bucket,
        read: impl FnOnce(Arc<dyn KeyValue>, Bucket) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let bucket = bucket.clone();
        let call = self.delivery.request(spec, &arguments)?;
        self.delivery.make_in_store(call, move |store, _| read(store, bucket)).await
    }

    async fn write<T>(
        &self,
        spec: &CallSpec,
        bucket: &Bucket,
        change: Change,
        answer: impl FnOnce(Changed) -> Result<T> + Send + 'static,
    ) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        change.check().map_err(call_error)?;
        let (bucket, quota) = (bucket.clone(), self.delivery.limits().get(Resource::KeyValue));
        let call = self.delivery.request(spec, &arguments(&bucket, &change))?;
        let make = move |store: Arc<dyn KeyValue>, call: &RecordedCall<InFlight>| {
            // By which the store applies the change once.
            let key = call.change_key();
            async move { answer(store.change(&bucket, change, quota, &key).await.map_err(call_error)?) }
        };
        self.delivery.make_in_store(call, make).await
    }
}

/// Returns the recorded arguments of a change.
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

/// Returns the error for a result that the store never returns for this call: a bug in the host.
fn other_answer(import: Import) -> CallError {
    CallError::new(ErrorKind::Unavailable, format!("the store returned an unexpected result for `{import}`"))
}

/// Maps a store error to a call error. Details of the host's disk are for operators and go to the log.
pub(super) fn call_error(error: KeyValueError) -> CallError {
    match error {
        KeyValueError::Refused(why) => CallError::new(ErrorKind::Invalid, why),
        KeyValueError::Storage(_) => {
            tracing::error!(%error, "key-value store failed");
            let text = "the host's key-value store is unavailable; the host's log has the reason";
            CallError::new(ErrorKind::Unavailable, text)
        }
    }
}
