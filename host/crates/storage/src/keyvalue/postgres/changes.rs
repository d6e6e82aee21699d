//! Applies changes to the tables.

use std::collections::{BTreeMap, BTreeSet};

use super::schema::STORE;
use crate::error::StorageError;
use crate::keyvalue::limits::{self, SpaceUsage, length};
use crate::keyvalue::{Bucket, Change, Changed, Entry, KeyValueError, Value, Version};
use crate::postgres::{Failure, Session, values};
use modhost_core::limits::Limit;

/// A requested change.
pub(super) struct ChangeRequest<'a> {
    pub(super) bucket: &'a Bucket,
    pub(super) change: &'a Change,
    /// The quota of the space, in bytes.
    pub(super) quota: Limit,
    /// The idempotency key of the change.
    pub(super) idempotency_key: &'a str,
}

/// The reason why a change has no effect.
enum Fault {
    Refused(KeyValueError),
    Failed(Failure),
}

impl From<KeyValueError> for Fault {
    fn from(refusal: KeyValueError) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

type Result<T> = std::result::Result<T, Fault>;

/// Removes idempotency keys, which are ordered.
pub(super) async fn forget(session: &Session, idempotency_keys: &[String]) -> std::result::Result<(), Failure> {
    if idempotency_keys.is_empty() {
        return Ok(());
    }
    let sql = "DELETE FROM keyvalue_done WHERE once IN \
               (SELECT once FROM keyvalue_done WHERE once = ANY ($1) ORDER BY once FOR UPDATE)";
    let keys: Vec<&str> = idempotency_keys.iter().map(String::as_str).collect();
    session.execute(sql, values![keys]).await.map(drop)
}

/// Applies a change in an open transaction, unless it was applied before. A refused change has written nothing.
pub(super) async fn change(
    session: &Session,
    request: &ChangeRequest<'_>,
) -> std::result::Result<crate::keyvalue::Result<Changed>, Failure> {
    match try_change(session, request).await {
        Ok(changed) => Ok(Ok(changed)),
        Err(Fault::Refused(refusal)) => Ok(Err(refusal)),
        Err(Fault::Failed(failure)) => Err(failure),
    }
}

async fn try_change(session: &Session, request: &ChangeRequest<'_>) -> Result<Changed> {
    // With the row of the space locked, the statements that follow see what the change before has committed.
    let mut space = Space::lock(session, request).await?;
    if let Some(earlier) = space.read_bucket().await? {
        return Ok(earlier);
    }
    let changed = match request.change {
        Change::Set(entries) => {
            // Of a repeated key, the last value counts.
            let entries: BTreeMap<&str, &[u8]> =
                entries.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
            space.set(&entries).await?;
            Changed::Done
        }
        Change::Delete(keys) => {
            space.delete(keys).await?;
            Changed::Done
        }
        Change::Increment { key, delta } => space.increment(key, *delta).await?,
        Change::Swap { key, expected, value } => {
            let current = space.entry(key).await?;
            if current.as_ref().map(|entry| entry.version) != *expected {
                // Nothing was changed, so the same change may be requested again.
                return Ok(Changed::Stale(current));
            }
            space.set(&BTreeMap::from([(key.as_str(), value.as_slice())])).await?;
            Changed::Done
        }
    };
    space.finish(&changed).await?;
    Ok(changed)
}

/// A space whose row is locked, with an open change of one of its buckets.
struct Space<'a> {
    session: &'a Session,
    request: &'a ChangeRequest<'a>,
    id: i64,
    bucket: Option<i64>,
    before: SpaceUsage,
    now: SpaceUsage,
}

impl<'a> Space<'a> {
    /// Locks the space of a request, and creates it if necessary.
    async fn lock(session: &'a Session, request: &'a ChangeRequest<'a>) -> Result<Self> {
        let Bucket { space, .. } = request.bucket;
        let (tenant, module) = (space.tenant.as_str(), space.module.as_str());
        let select = "SELECT id, keys, bytes FROM keyvalue_spaces WHERE tenant = $1 AND module = $2 FOR UPDATE";
        let mut rows = session.query(select, values![tenant, module]).await?;
        if rows.is_empty() {
            let sql = "INSERT INTO keyvalue_spaces (tenant, module, keys, bytes) VALUES ($1, $2, 0, 0) \
                       ON CONFLICT DO NOTHING";
            session.execute(sql, values![tenant, module]).await?;
            rows = session.query(select, values![tenant, module]).await?;
        }
        let row = rows.first().ok_or_else(|| missing("space"))?;
        let (id, keys, bytes) = (session.get(row, 0)?, session.get(row, 1)?, session.get(row, 2)?);
        let before = SpaceUsage { keys, bytes };
        Ok(Self { session, request, id, bucket: None, before, now: before })
    }

    /// Reads the id of the bucket, if it has keys. Returns the answer of the change if it was applied before.
    async fn read_bucket(&mut self) -> Result<Option<Changed>> {
        let sql = "SELECT (SELECT id FROM keyvalue_buckets WHERE space = $1 AND name = $2), \
                          EXISTS (SELECT FROM keyvalue_done WHERE once = $3), \
                          (SELECT answer FROM keyvalue_done WHERE once = $3)";
        let ChangeRequest { bucket, idempotency_key, .. } = self.request;
        let rows = self.session.query(sql, values![self.id, bucket.name().as_bytes(), *idempotency_key]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        self.bucket = self.session.get(row, 0)?;
        let (is_done, answer): (bool, Option<i64>) = (self.session.get(row, 1)?, self.session.get(row, 2)?);
        Ok(is_done.then(|| answer.map_or(Changed::Done, Changed::Counted)))
    }

    /// Returns the entry of a key.
    async fn entry(&self, key: &str) -> Result<Option<Entry>> {
        let Some(bucket) = self.bucket else { return Ok(None) };
        let sql = "SELECT version, value FROM keyvalue_entries WHERE bucket = $1 AND key = $2";
        let rows = self.session.query(sql, values![bucket, key.as_bytes()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (version, value) = (self.session.get(row, 0)?, self.session.get(row, 1)?);
        Ok(Some(Entry { version: Version(version), value: Value(value) }))
    }

    async fn set(&mut self, entries: &BTreeMap<&str, &[u8]>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = entries.keys().map(|key| key.as_bytes()).collect();
        let replaced = self.sizes(&keys).await?;
        let added = entries.iter().filter(|(key, _)| !replaced.contains_key(key.as_bytes()));
        let (added, added_bytes) =
            added.fold((0, 0), |(keys, bytes), (key, _)| (keys + 1, bytes + length(key.as_bytes())));
        let values: Vec<&[u8]> = entries.values().copied().collect();
        self.now.keys += added;
        self.now.bytes +=
            added_bytes + values.iter().map(|value| length(value)).sum::<i64>() - replaced.values().sum::<i64>();
        if self.bucket.is_none() {
            self.check_buckets().await?;
        }
        self.now.check(self.before, self.request.quota)?;
        let bucket = match self.bucket {
            Some(bucket) => bucket,
            None => self.create_bucket().await?,
        };
        let sql = "INSERT INTO keyvalue_entries (bucket, key, version, value, changed_at) \
                   SELECT $1, key, nextval('keyvalue_versions'), value, clock_timestamp() \
                   FROM unnest($2, $3) AS new (key, value) \
                   ON CONFLICT (bucket, key) DO UPDATE \
                   SET version = excluded.version, value = excluded.value, changed_at = excluded.changed_at";
        self.session.execute(sql, values![bucket, keys, values]).await?;
        Ok(())
    }

    async fn delete(&mut self, keys: &[String]) -> Result<()> {
        let Some(bucket) = self.bucket else { return Ok(()) };
        let keys: BTreeSet<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let keys: Vec<&[u8]> = keys.into_iter().collect();
        let deleted = self.sizes(&keys).await?;
        if deleted.is_empty() {
            return Ok(());
        }
        self.now.keys -= i64::try_from(deleted.len()).unwrap_or(i64::MAX);
        self.now.bytes -= deleted.iter().map(|(key, size)| length(key) + size).sum::<i64>();
        let sql = "DELETE FROM keyvalue_entries WHERE bucket = $1 AND key = ANY ($2)";
        self.session.execute(sql, values![bucket, keys]).await?;
        let sql = "DELETE FROM keyvalue_buckets WHERE id = $1 AND NOT EXISTS \
                   (SELECT FROM keyvalue_entries WHERE bucket = $1)";
        self.session.execute(sql, values![bucket]).await?;
        Ok(())
    }

    async fn increment(&mut self, key: &str, delta: i64) -> Result<Changed> {
        let number = limits::increment(key, self.entry(key).await?, delta)?;
        self.set(&BTreeMap::from([(key, number.to_string().as_bytes())])).await?;
        Ok(Changed::Counted(number))
    }

    /// Returns the sizes of the values of those keys that exist.
    async fn sizes(&self, keys: &[&[u8]]) -> Result<BTreeMap<Vec<u8>, i64>> {
        let Some(bucket) = self.bucket else { return Ok(BTreeMap::new()) };
        let sql = "SELECT key, octet_length(value)::bigint FROM keyvalue_entries WHERE bucket = $1 AND key = ANY ($2)";
        let rows = self.session.query(sql, values![bucket, keys.to_vec()]).await?;
        let mut sizes = BTreeMap::new();
        for row in &rows {
            sizes.insert(self.session.get(row, 0)?, self.session.get(row, 1)?);
        }
        Ok(sizes)
    }

    /// Refuses another bucket if there are too many.
    async fn check_buckets(&self) -> Result<()> {
        let rows =
            self.session.query("SELECT count(*) FROM keyvalue_buckets WHERE space = $1", values![self.id]).await?;
        let buckets: i64 = rows.first().map_or(Ok(0), |row| self.session.get(row, 0))?;
        Ok(limits::check_buckets(self.request.bucket.name(), buckets)?)
    }

    async fn create_bucket(&mut self) -> Result<i64> {
        let sql = "INSERT INTO keyvalue_buckets (space, name) VALUES ($1, $2) RETURNING id";
        let rows = self.session.query(sql, values![self.id, self.request.bucket.name().as_bytes()]).await?;
        let row = rows.first().ok_or_else(|| missing("bucket"))?;
        let bucket = self.session.get(row, 0)?;
        self.bucket = Some(bucket);
        Ok(bucket)
    }

    /// Records the size of the space, and that the change was applied.
    async fn finish(self, changed: &Changed) -> Result<()> {
        let Self { session, request, id, before, now, .. } = self;
        if now != before {
            let sql = "UPDATE keyvalue_spaces SET keys = $2, bytes = $3 WHERE id = $1";
            session.execute(sql, values![id, now.keys, now.bytes]).await?;
        }
        let answer = match changed {
            Changed::Counted(count) => Some(*count),
            Changed::Done | Changed::Stale(_) => None,
        };
        let sql = "INSERT INTO keyvalue_done (once, at, answer) VALUES ($1, now(), $2)";
        session.execute(sql, values![request.idempotency_key, answer]).await?;
        Ok(())
    }
}

/// The failure if a row is missing that this transaction has written or locked. No statement of ours removes it.
fn missing(row: &str) -> Fault {
    Fault::Failed(Failure::Refused(StorageError::broken(STORE.store, format!("the row of the {row} disappeared"))))
}
