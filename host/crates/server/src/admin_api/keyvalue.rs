//! The values that modules keep in the key-value store, for operators to inspect.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Admin, ApiError, ApiResult};
use super::view::{BucketView, KeyView};
use modhost_core::event::Name;
use modhost_storage::keyvalue::{Bucket, Space};

/// The default number of keys in a page.
const DEFAULT_LIMIT: u32 = 100;

/// The largest `limit` of a page.
const MAX_LIMIT: u32 = 10_000;

/// Returns the buckets of a module for a tenant.
pub(super) async fn buckets(
    State(admin): State<Admin>,
    Path((tenant, module)): Path<(String, String)>,
) -> ApiResult<Value> {
    let buckets = admin.keyvalue.buckets(&space(tenant, module)).await?;
    let buckets: Vec<BucketView> = buckets.into_iter().map(BucketView::from).collect();
    Ok(Json(json!({ "buckets": buckets })))
}

/// The position and size of a page of keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<u32>,
}

/// Returns a page of a bucket's keys, without their values.
pub(super) async fn keys(
    State(admin): State<Admin>,
    Path((tenant, module, bucket)): Path<(String, String, String)>,
    Query(page): Query<Page>,
) -> ApiResult<Value> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError(StatusCode::BAD_REQUEST, format!("`limit` must be from 1 to {MAX_LIMIT}")));
    }
    let bucket = Bucket::new(space(tenant, module), bucket)?;
    // One more than requested, to find out whether there are more.
    let mut keys = admin.keyvalue.keys(&bucket, page.after, limit + 1).await?;
    let has_more = keys.len() > limit as usize;
    keys.truncate(limit as usize);
    let next = keys.last().filter(|_| has_more).map(|last| last.key.clone());
    let keys: Vec<KeyView> = keys.into_iter().map(KeyView::from).collect();
    Ok(Json(json!({ "keys": keys, "next": next })))
}

/// The key of a value. It is in the query, since a key may be any text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    key: String,
}

/// Returns one value: text as it is, other bytes as `{"hex": …}`.
pub(super) async fn value(
    State(admin): State<Admin>,
    Path((tenant, module, bucket)): Path<(String, String, String)>,
    Query(Key { key }): Query<Key>,
) -> ApiResult<Value> {
    let bucket = Bucket::new(space(tenant, module), bucket)?;
    let found = admin.keyvalue.get(&bucket, vec![key.clone()]).await?.pop().flatten();
    let unknown = || {
        let Bucket { space, .. } = &bucket;
        let text = format!("module {} has no value under `{key}` for {}", space.module, space.tenant);
        ApiError(StatusCode::NOT_FOUND, format!("{text} in bucket `{}`", bucket.name()))
    };
    let entry = found.ok_or_else(unknown)?;
    Ok(Json(json!({ "key": key, "value": entry.value })))
}

fn space(tenant: String, module: String) -> Space {
    Space { tenant: Name::from(tenant), module: Name::from(module) }
}
