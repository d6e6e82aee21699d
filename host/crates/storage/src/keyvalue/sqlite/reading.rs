//! Queries that run concurrently with the writer.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::keyvalue::limits::{MAX_READ, reject, size};
use crate::keyvalue::{Bucket, BucketTotals, Entry, KeyInfo, Result, Space, Value, Version};
use modhost_core::clock::from_millis;

/// Returns the id of a bucket; `None` if it has no keys.
pub(super) fn bucket(connection: &Connection, bucket: &Bucket) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT buckets.id FROM buckets JOIN spaces ON spaces.id = space WHERE tenant = ?1 AND module = ?2 AND name = ?3";
    let (tenant, module) = (bucket.space.tenant.as_str(), bucket.space.module.as_str());
    connection.prepare_cached(sql)?.query_row(params![tenant, module, bucket.name()], |row| row.get(0)).optional()
}

/// Returns the entry of a key.
pub(super) fn entry(connection: &Connection, bucket: i64, key: &str) -> rusqlite::Result<Option<Entry>> {
    let sql = "SELECT version, value FROM entries WHERE bucket = ?1 AND key = ?2";
    let read = |row: &Row<'_>| Ok(Entry { version: Version(row.get(0)?), value: Value(row.get(1)?) });
    connection.prepare_cached(sql)?.query_row(params![bucket, key], read).optional()
}

/// Returns the entries of keys, or a refusal if the values together are larger than [`MAX_READ`].
pub(super) fn get(
    connection: &Connection,
    bucket: &Bucket,
    keys: &[String],
) -> rusqlite::Result<Result<Vec<Option<Entry>>>> {
    let Some(bucket) = self::bucket(connection, bucket)? else { return Ok(Ok(vec![None; keys.len()])) };
    let (mut entries, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let entry = entry(connection, bucket, key)?;
        bytes += entry.as_ref().map_or(0, |entry| entry.value.0.len());
        if bytes > MAX_READ {
            let max = size(MAX_READ);
            return Ok(reject(format!("the values exceed {max}, the maximum of one call; read fewer keys at once")));
        }
        entries.push(entry);
    }
    Ok(Ok(entries))
}

/// Returns up to `limit` keys of a bucket after `after`, in order.
pub(super) fn keys(
    connection: &Connection,
    bucket: &Bucket,
    after: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<KeyInfo>> {
    let Some(bucket) = self::bucket(connection, bucket)? else { return Ok(Vec::new()) };
    let sql = "SELECT key, length(value), changed_at FROM entries WHERE bucket = ?1 AND (?2 IS NULL OR key > ?2) \
               ORDER BY key LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let keys = statement.query_map(params![bucket, after, limit], |row| {
        Ok(KeyInfo { key: row.get(0)?, size: count(row, 1)?, changed_at: from_millis(row.get(2)?) })
    })?;
    keys.collect()
}

/// Returns the buckets of a space, ordered by name.
pub(super) fn buckets(connection: &Connection, space: &Space) -> rusqlite::Result<Vec<BucketTotals>> {
    let sql = "SELECT name, count(*), sum(length(CAST(key AS BLOB)) + length(value)) FROM buckets \
               JOIN spaces ON spaces.id = space JOIN entries ON bucket = buckets.id \
               WHERE tenant = ?1 AND module = ?2 GROUP BY buckets.id ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let buckets = statement.query_map([space.tenant.as_str(), space.module.as_str()], |row| {
        Ok(BucketTotals { name: row.get(0)?, keys: count(row, 1)?, bytes: count(row, 2)? })
    })?;
    buckets.collect()
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}
