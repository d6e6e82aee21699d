//! Applies changes to the tables.

use rusqlite::{Connection, OptionalExtension, params};

use super::reading;
use super::store::{ChangeRequest, Fault};
use crate::keyvalue::limits::{MAX_BUCKETS, MAX_KEYS, size};
use crate::keyvalue::{Bucket, Change, Changed, KeyValueError, Version};
use modhost_core::limits::Resource;

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
    before: Usage,
    now: Usage,
}

/// The number of keys of a space, and the size of its keys and values in bytes.
#[derive(Clone, Copy)]
struct Usage {
    keys: i64,
    bytes: i64,
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
            .query_row(names, |row| Ok((row.get(0)?, Usage { keys: row.get(1)?, bytes: row.get(2)? })))?;
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
        let number = match current {
            None => 0,
            Some(entry) => {
                let text = String::from_utf8(entry.value.0).ok();
                let number = text.and_then(|text| text.parse::<i64>().ok());
                number.ok_or_else(|| refused(format!("the value of `{key}` is not a whole number in decimal text")))?
            }
        };
        let overflow = || refused(format!("`{key}` is {number}; adding {delta} exceeds 64 bits"));
        let number = number.checked_add(delta).ok_or_else(overflow)?;
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
        if buckets.unsigned_abs() >= MAX_BUCKETS {
            return Err(refused(format!(
                "cannot create the bucket `{}`: the module has {buckets} buckets for this tenant, the maximum; delete all \
                 keys of a bucket to remove it",
                self.request.bucket.name()
            )));
        }
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
        if now.keys > before.keys && now.keys.unsigned_abs() > MAX_KEYS {
            return Err(refused(format!(
                "cannot add another key: the module has {} keys for this tenant, and the maximum is {MAX_KEYS}; delete \
                 keys that are not needed any more",
                before.keys
            )));
        }
        if now.bytes > before.bytes && now.bytes.unsigned_abs() > request.quota.amount {
            return Err(refused(format!(
                "cannot store {} more: the keys and values of the module for this tenant take {} of the {} that {} in \
                 modules.toml allows; raise the limit there, or delete keys that are not needed any more",
                size((now.bytes - before.bytes).unsigned_abs()),
                size(before.bytes.unsigned_abs()),
                size(request.quota.amount),
                request.quota.setting(Resource::KeyValue)
            )));
        }
        let sql = "UPDATE spaces SET keys = ?2, bytes = ?3 WHERE id = ?1";
        connection.prepare_cached(sql)?.execute(params![id, now.keys, now.bytes])?;
        Ok(())
    }
}

fn length(bytes: &[u8]) -> i64 {
    // The length of a slice never exceeds `i64::MAX`.
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn refused(why: String) -> Fault {
    Fault::Refused(KeyValueError::Refused(why))
}
