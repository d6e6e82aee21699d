//! Fixed limits that apply to every module in addition to its configured ones. They keep the store fast.

use bytesize::ByteSize;

use super::{Entry, KeyValueError, Result};
use modhost_core::limits::{Limit, Resource};

/// Maximum size of a key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Maximum size of a bucket's name, in bytes.
pub(super) const MAX_NAME: usize = 256;
/// Maximum size of a value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// Maximum number of keys of a module for one tenant, in all buckets together.
pub const MAX_KEYS: u64 = 100_000;
/// Maximum number of buckets of a module for one tenant.
pub const MAX_BUCKETS: u64 = 100;
/// Maximum number of keys in one call.
pub const MAX_BATCH: usize = 1000;
/// Maximum size of the values in one answer, in bytes.
pub const MAX_READ: usize = 8 << 20;

/// Checks the size of a key.
///
/// # Errors
///
/// If it is too long.
pub fn check_key(key: &str) -> Result<()> {
    match key.len() {
        0..=MAX_KEY => Ok(()),
        long => reject(format!("a key has {long} bytes; the maximum is {MAX_KEY}")),
    }
}

/// Checks the size of a value.
pub(crate) fn check_value(key: &str, value: &[u8]) -> Result<()> {
    match value.len() {
        0..=MAX_VALUE => Ok(()),
        large => reject(format!("the value for `{key}` has {large} bytes; the maximum is {MAX_VALUE} (1 MiB)")),
    }
}

/// Checks the number of keys in one call.
///
/// # Errors
///
/// If there are too many.
pub fn check_batch(keys: usize) -> Result<()> {
    match keys {
        0..=MAX_BATCH => Ok(()),
        many => reject(format!("one call names {many} keys; the maximum is {MAX_BATCH}, so make several calls")),
    }
}

pub(super) fn reject<T>(why: String) -> Result<T> {
    Err(KeyValueError::Refused(why))
}

/// Formats a size for display: `1.0 MiB`.
pub(super) fn size(bytes: impl TryInto<u64>) -> impl std::fmt::Display {
    ByteSize::b(bytes.try_into().unwrap_or(u64::MAX)).display().iec()
}

/// The number of keys of a space, and the size of its keys and values in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SpaceUsage {
    pub(super) keys: i64,
    pub(super) bytes: i64,
}

impl SpaceUsage {
    /// Refuses a change that enlarges a space beyond a limit. `self` is the usage after the change.
    pub(super) fn check(self, before: Self, quota: Limit) -> Result<()> {
        if self.keys > before.keys && self.keys.unsigned_abs() > MAX_KEYS {
            return reject(format!(
                "cannot add another key: the module has {} keys for this tenant, and the maximum is {MAX_KEYS}; delete \
                 keys that are not needed any more",
                before.keys
            ));
        }
        if self.bytes > before.bytes && self.bytes.unsigned_abs() > quota.amount {
            return reject(format!(
                "cannot store {} more: the keys and values of the module for this tenant take {} of the {} that {} in \
                 modules.toml allows; raise the limit there, or delete keys that are not needed any more",
                size((self.bytes - before.bytes).unsigned_abs()),
                size(before.bytes.unsigned_abs()),
                size(quota.amount),
                quota.setting(Resource::KeyValue)
            ));
        }
        Ok(())
    }
}

/// Refuses another bucket of a space that has `buckets` if these are too many.
pub(super) fn check_buckets(name: &str, buckets: i64) -> Result<()> {
    if buckets.unsigned_abs() < MAX_BUCKETS {
        return Ok(());
    }
    reject(format!(
        "cannot create the bucket `{name}`: the module has {buckets} buckets for this tenant, the maximum; delete all keys \
         of a bucket to remove it"
    ))
}

/// Adds to a number that is stored as decimal text; a missing value counts as 0.
pub(super) fn increment(key: &str, current: Option<Entry>, delta: i64) -> Result<i64> {
    let number = match current {
        None => 0,
        Some(entry) => match String::from_utf8(entry.value.0).ok().and_then(|text| text.parse::<i64>().ok()) {
            Some(number) => number,
            None => return reject(format!("the value of `{key}` is not a whole number in decimal text")),
        },
    };
    match number.checked_add(delta) {
        Some(sum) => Ok(sum),
        None => reject(format!("`{key}` is {number}; adding {delta} exceeds 64 bits")),
    }
}

/// Returns the length of bytes as a column contains it.
pub(super) fn length(bytes: &[u8]) -> i64 {
    // The length of a slice never exceeds `i64::MAX`.
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}
