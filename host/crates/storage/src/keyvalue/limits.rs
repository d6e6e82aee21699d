//! Fixed limits that apply to every module in addition to its configured ones. They keep the store fast.

use bytesize::ByteSize;

use super::{KeyValueError, Result};

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
