//! Applies changes to the tables.

use rusqlite::{Connection, OptionalExtension, params};

use super::reading;
use super::store::{ChangeRequest, Fault};
use crate::keyvalue::limits::{self, SpaceUsage, length};
use crate::keyvalue::{Bucket, Change, Changed, Version};

type Result<T> = std::result::Result<T, Fault>;

/// Applies a change in an open transaction, unless it was applied before. The caller must roll back a refused change,
/// which may have changed rows.
pub(super) fn change(connection: &Connection, request: &ChangeRequest) -> Result<Changed> {
    if let Some(earlier) = earlier_answer(connection, &request.idempotency_key)? {
        return Ok(earlier);
    }
    let changed = Space::of(connection, request)?.apply(&request.change)?;
    let answer = match &changed {
        Changed::Done => None,
        Changed::Counted(count) => Some(*count),
        // Nothing was changed, so the same change may be requested again.
        Changed::Stale(_) => return Ok(changed),
    };
    let sql = "INSERT INTO done (once, at, answer) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![request.idempotency_key, request.at, answer])?;
    Ok(changed)
}

/// Returns the answer of a change that was applied before; `None` if it was not.
fn earlier_answer(connection: &Connection, idempotency_key: &str) -> Result<Option<Changed>> {
    let sql = "SELECT answer FROM done WHERE once = ?1";
    let found =
        connection.prepare_cached(sql)?.query_row([idempotency_key], |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(found.map(|answer| answer.map_or(Changed::Done, Changed::Counted)))
}

/// Removes an idempotency key.
pub(super) fn forget(connection: &Connection, idempotency_key: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM done WHERE once = ?1")?.execute([idempotency_key]).map(drop)
}

/// A space with an open change of one of its buckets.
struct Space<'a> {
    connection: &'a Connection,
    request: &'a ChangeRequest,
    id: i64,
    bucket: Option<i64>,
    before: SpaceUsage,
    now: SpaceUsage,
}

impl<'a> Space<'a> {
    /// Returns the space of a request, and creates it if necessary.
    fn of(connection: &'a Connection, request: &'a ChangeRequest) -> Result<Self> {
        let Bucket { space, .. } = &request.bucket;
        let names = [space.tenant.as_str(), space.module.as_str()];
        let sql = "INSERT INTO spaces (tenant, module, keys, bytes) VALUES (?1, ?2, 0, 0) ON CONFLICT DO NOTHING";
        connection.prepare_cached(sql)?.execute(names)?;
        let sql = "SELECT id, keys, bytes FROM spaces WHERE tenant = ?1 AND module = ?2";
        let (id, before) = connection
            .prepare_cached(sql)?
            .query_row(names, |row| Ok((row.get(0)?, SpaceUsage { keys: row.get(1)?, bytes: row.get(2)? })))?;
        let bucket = reading::bucket(connection, &request.bucket)?;
        Ok(Self { connection, request, id, bucket, before, now: before })
    }

    fn apply(mut self, change: &Change) -> Result<Changed> {
        let changed = match change {
            Change::Set(entries) => {
                for (key, value) in entries {
                    self.set(key, value)?;
                }
                Changed::Done
            }
            Change::Delete(keys) => {
                for key in keys {
                    self.delete(key)?;
                }
                Changed::Done
            }
            Change::Increment { key, delta } => self.increment(key, *delta)?,
            Change::Swap { key, expected, value } => self.swap(key, *expected, value)?,
        };
        self.finish()?;
        Ok(changed)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let bucket = self.ensure_bucket()?;
        match self.value_size(bucket, key)? {
            Some(size) => self.now.bytes -= size,
            None => {
                self.now.keys += 1;
                self.now.bytes += length(key.as_bytes());
            }
        }
        self.now.bytes += length(value);
        let sql = "REPLACE INTO entries (bucket, key, value, changed_at) VALUES (?1, ?2, ?3, ?4)";
        self.connection.prepare_cached(sql)?.execute(params![bucket, key, value, self.request.at])?;
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<()> {
        let Some(bucket) = self.bucket else { return Ok(()) };
        let Some(size) = self.value_size(bucket, key)? else { return Ok(()) };
        self.now.keys -= 1;
        self.now.bytes -= size + length(key.as_bytes());
        let sql = "DELETE FROM entries WHERE bucket = ?1 AND key = ?2";
        self.connection.prepare_cached(sql)?.execute(params![bucket, key])?;
        let sql = "DELETE FROM buckets WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entries WHERE bucket = ?1)";
        if self.connection.prepare_cached(sql)?.execute([bucket])? > 0 {
            self.bucket = None;
        }
        Ok(())
    }

    fn increment(&mut self, key: &str, delta: i64) -> Result<Changed> {
        let current = match self.bucket {
            Some(bucket) => reading::entry(self.connection, bucket, key)?,
            None => None,
        };
        let number = limits::increment(key, current, delta).map_err(Fault::Refused)?;
        self.set(key, number.to_string().as_bytes())?;
        Ok(Changed::Counted(number))
    }

    fn swap(&mut self, key: &str, expected: Option<Version>, value: &[u8]) -> Result<Changed> {
        let current = match self.bucket {
            Some(bucket) => reading::entry(self.connection, bucket, key)?,
            None => None,
        };
        if current.as_ref().map(|entry| entry.version) != expected {
            return Ok(Changed::Stale(current));
        }
        self.set(key, value)?;
        Ok(Changed::Done)
    }

    /// Returns the id of the bucket, and creates it if necessary.
    fn ensure_bucket(&mut self) -> Result<i64> {
        if let Some(bucket) = self.bucket {
            return Ok(bucket);
        }
        let sql = "SELECT count(*) FROM buckets WHERE space = ?1";
        let buckets: i64 = self.connection.prepare_cached(sql)?.query_row([self.id], |row| row.get(0))?;
        limits::check_buckets(self.request.bucket.name(), buckets).map_err(Fault::Refused)?;
        let sql = "INSERT INTO buckets (space, name) VALUES (?1, ?2)";
        self.connection.prepare_cached(sql)?.execute(params![self.id, self.request.bucket.name()])?;
        let bucket = self.connection.last_insert_rowid();
        self.bucket = Some(bucket);
        Ok(bucket)
    }

    fn value_size(&self, bucket: i64, key: &str) -> Result<Option<i64>> {
        let sql = "SELECT length(value) FROM entries WHERE bucket = ?1 AND key = ?2";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![bucket, key], |row| row.get(0)).optional()?)
    }

    /// Records the size of the space, or refuses the change if it exceeds a limit.
    fn finish(self) -> Result<()> {
        let Self { connection, request, id, before, now, .. } = self;
        now.check(before, request.quota).map_err(Fault::Refused)?;
        let sql = "UPDATE spaces SET keys = ?2, bytes = ?3 WHERE id = ?1";
        connection.prepare_cached(sql)?.execute(params![id, now.keys, now.bytes])?;
        Ok(())
    }
}
