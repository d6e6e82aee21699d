//! Changes of the tables.

use rusqlite::{Connection, OptionalExtension, params};

use super::reading;
use super::store::{ChangeRequest, Fault};
use crate::keyvalue::limits::{MAX_BUCKETS, MAX_KEYS, size};
use crate::keyvalue::{Bucket, Change, Changed, KeyValueError, Version};
use modhost_core::limits::Resource;

type Result<T> = std::result::Result<T, Fault>;

/// Makes a change in an open transaction, unless it was made before. One that is refused may have changed rows: the caller
/// rolls them back.
pub(super) fn change(connection: &Connection, request: &ChangeRequest) -> Result<Changed> {
    if let Some(before) = done(connection, &request.once)? {
        return Ok(before);
    }
    let changed = Space::of(connection, request)?.apply(&request.change)?;
    let answer = match &changed {
        Changed::Done => None,
        Changed::Counted(count) => Some(*count),
        // Nothing was changed: the same change may be tried again.
        Changed::Stale(_) => return Ok(changed),
    };
    let sql = "INSERT INTO done (once, at, answer) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![request.once, request.at, answer])?;
    Ok(changed)
}

/// Returns the answer of a change that was made before.
fn done(connection: &Connection, once: &str) -> Result<Option<Changed>> {
    let sql = "SELECT answer FROM done WHERE once = ?1";
    let found = connection.prepare_cached(sql)?.query_row([once], |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(found.map(|answer| answer.map_or(Changed::Done, Changed::Counted)))
}

/// Forgets the name of a change.
pub(super) fn forget(connection: &Connection, once: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM done WHERE once = ?1")?.execute([once]).map(drop)
}

/// A space, while one of its buckets is changed.
struct Space<'a> {
    connection: &'a Connection,
    request: &'a ChangeRequest,
    id: i64,
    bucket: Option<i64>,
    before: Used,
    now: Used,
}

/// The size of a space.
#[derive(Clone, Copy)]
struct Used {
    keys: i64,
    bytes: i64,
}

impl<'a> Space<'a> {
    /// Returns the space of a bucket, created if necessary.
    fn of(connection: &'a Connection, request: &'a ChangeRequest) -> Result<Self> {
        let Bucket { space, .. } = &request.bucket;
        let names = [space.tenant.as_str(), space.module.as_str()];
        let sql = "INSERT INTO spaces (tenant, module, keys, bytes) VALUES (?1, ?2, 0, 0) ON CONFLICT DO NOTHING";
        connection.prepare_cached(sql)?.execute(names)?;
        let sql = "SELECT id, keys, bytes FROM spaces WHERE tenant = ?1 AND module = ?2";
        let (id, before) = connection
            .prepare_cached(sql)?
            .query_row(names, |row| Ok((row.get(0)?, Used { keys: row.get(1)?, bytes: row.get(2)? })))?;
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
        let bucket = self.bucket_to_fill()?;
        match self.size_of(bucket, key)? {
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
        let Some(size) = self.size_of(bucket, key)? else { return Ok(()) };
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
        let stands = match self.bucket {
            Some(bucket) => reading::entry(self.connection, bucket, key)?,
            None => None,
        };
        let number = match stands {
            None => 0,
            Some(entry) => {
                let text = String::from_utf8(entry.value.0).ok();
                let number = text.and_then(|text| text.parse::<i64>().ok());
                number.ok_or_else(|| refused(format!("what stands under `{key}` is no whole number in text")))?
            }
        };
        let beyond = || refused(format!("`{key}` is {number}, and {delta} more is beyond 64 bits"));
        let number = number.checked_add(delta).ok_or_else(beyond)?;
        self.set(key, number.to_string().as_bytes())?;
        Ok(Changed::Counted(number))
    }

    fn swap(&mut self, key: &str, expected: Option<Version>, value: &[u8]) -> Result<Changed> {
        let stands = match self.bucket {
            Some(bucket) => reading::entry(self.connection, bucket, key)?,
            None => None,
        };
        if stands.as_ref().map(|entry| entry.version) != expected {
            return Ok(Changed::Stale(stands));
        }
        self.set(key, value)?;
        Ok(Changed::Done)
    }

    /// Returns the bucket, created if necessary.
    fn bucket_to_fill(&mut self) -> Result<i64> {
        if let Some(bucket) = self.bucket {
            return Ok(bucket);
        }
        let sql = "SELECT count(*) FROM buckets WHERE space = ?1";
        let buckets: i64 = self.connection.prepare_cached(sql)?.query_row([self.id], |row| row.get(0))?;
        if buckets.unsigned_abs() >= MAX_BUCKETS {
            return Err(refused(format!(
                "there is no room for the bucket `{}`: the module has {buckets} for this tenant, as many as it may have; \
                 one goes with its last key",
                self.request.bucket.name()
            )));
        }
        let sql = "INSERT INTO buckets (space, name) VALUES (?1, ?2)";
        self.connection.prepare_cached(sql)?.execute(params![self.id, self.request.bucket.name()])?;
        let bucket = self.connection.last_insert_rowid();
        self.bucket = Some(bucket);
        Ok(bucket)
    }

    fn size_of(&self, bucket: i64, key: &str) -> Result<Option<i64>> {
        let sql = "SELECT length(value) FROM entries WHERE bucket = ?1 AND key = ?2";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![bucket, key], |row| row.get(0)).optional()?)
    }

    /// Refuses a space that exceeds its limits, and records its size.
    fn finish(self) -> Result<()> {
        let Self { connection, request, id, before, now, .. } = self;
        if now.keys > before.keys && now.keys.unsigned_abs() > MAX_KEYS {
            return Err(refused(format!(
                "there is no room for another key: the module has {} for this tenant, and may have {MAX_KEYS}; delete what \
                 is not needed any more",
                before.keys
            )));
        }
        if now.bytes > before.bytes && now.bytes.unsigned_abs() > request.quota.amount {
            return Err(refused(format!(
                "there is no room for {} more: what the module keeps for this tenant, keys and values, takes {} of the {} \
                 that {} in modules.toml allows; raise it there, or delete what is not needed any more",
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
    // A slice has no more bytes than this holds.
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn refused(why: String) -> Fault {
    Fault::Refused(KeyValueError::Refused(why))
}
