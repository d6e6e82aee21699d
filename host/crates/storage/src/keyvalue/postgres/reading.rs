//! Queries.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::keyvalue::limits::{MAX_READ, reject, size};
use crate::keyvalue::{Bucket, BucketTotals, Entry, KeyInfo, Result, Space, Value, Version};
use crate::postgres::{Failure, Row, Session, values};

/// Returns the entries of keys, or a refusal if the values together are larger than [`MAX_READ`].
pub(super) async fn get(
    session: &Session,
    bucket: &Bucket,
    keys: &[String],
) -> std::result::Result<Result<Vec<Option<Entry>>>, Failure> {
    // Values that are too large together are not sent.
    let sql = "SELECT e.key, e.version, CASE WHEN sum(octet_length(e.value)) OVER () <= $5 THEN e.value END \
               FROM keyvalue_entries e JOIN keyvalue_buckets b ON b.id = e.bucket JOIN keyvalue_spaces s ON s.id = b.space \
               WHERE s.tenant = $1 AND s.module = $2 AND b.name = $3 AND e.key = ANY ($4)";
    let wanted: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let max = i64::try_from(MAX_READ).unwrap_or(i64::MAX);
    let Space { tenant, module } = &bucket.space;
    let rows =
        session.query(sql, values![tenant.as_str(), module.as_str(), bucket.name().as_bytes(), wanted, max]).await?;
    let mut found: HashMap<Vec<u8>, Entry> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let Some(value) = session.get::<Option<Vec<u8>>>(row, 2)? else { return Ok(too_large()) };
        let entry = Entry { version: Version(session.get(row, 1)?), value: Value(value) };
        found.insert(session.get(row, 0)?, entry);
    }
    // A key that is named twice counts twice.
    let bytes: usize = keys.iter().filter_map(|key| found.get(key.as_bytes())).map(|entry| entry.value.0.len()).sum();
    if bytes > MAX_READ {
        return Ok(too_large());
    }
    Ok(Ok(keys.iter().map(|key| found.get(key.as_bytes()).cloned()).collect()))
}

fn too_large<T>() -> Result<T> {
    reject(format!("the values exceed {}, the maximum of one call; read fewer keys at once", size(MAX_READ)))
}

/// Returns up to `limit` keys of a bucket after `after`, in order.
pub(super) async fn keys(
    session: &Session,
    bucket: &Bucket,
    after: Option<&str>,
    limit: u32,
) -> std::result::Result<Vec<KeyInfo>, Failure> {
    let sql = "SELECT e.key, octet_length(e.value)::bigint, e.changed_at \
               FROM keyvalue_entries e JOIN keyvalue_buckets b ON b.id = e.bucket JOIN keyvalue_spaces s ON s.id = b.space \
               WHERE s.tenant = $1 AND s.module = $2 AND b.name = $3 AND ($4::bytea IS NULL OR e.key > $4) \
               ORDER BY e.key LIMIT $5";
    let Space { tenant, module } = &bucket.space;
    let after = after.map(str::as_bytes);
    let rows = session
        .query(sql, values![tenant.as_str(), module.as_str(), bucket.name().as_bytes(), after, i64::from(limit)])
        .await?;
    let info = |row: &Row| {
        Ok(KeyInfo {
            key: text(session.get(row, 0)?),
            size: count(session.get(row, 1)?),
            changed_at: session.get::<SystemTime>(row, 2)?,
        })
    };
    rows.iter().map(info).collect()
}

/// Returns the buckets of a space, ordered by name.
pub(super) async fn buckets(session: &Session, space: &Space) -> std::result::Result<Vec<BucketTotals>, Failure> {
    let sql = "SELECT b.name, count(*), sum(octet_length(e.key) + octet_length(e.value))::bigint \
               FROM keyvalue_entries e JOIN keyvalue_buckets b ON b.id = e.bucket JOIN keyvalue_spaces s ON s.id = b.space \
               WHERE s.tenant = $1 AND s.module = $2 GROUP BY b.id, b.name ORDER BY b.name";
    let rows = session.query(sql, values![space.tenant.as_str(), space.module.as_str()]).await?;
    let totals = |row: &Row| {
        let (name, keys, bytes) = (session.get(row, 0)?, session.get(row, 1)?, session.get(row, 2)?);
        Ok(BucketTotals { name: text(name), keys: count(keys), bytes: count(bytes) })
    };
    rows.iter().map(totals).collect()
}

/// Returns a key or name, which is always written as text.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn count(number: i64) -> u64 {
    number.unsigned_abs()
}
