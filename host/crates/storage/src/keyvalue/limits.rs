//! What holds for every module, whatever the operator grants: bounds within which the store stays quick.

use bytesize::ByteSize;

use super::{Result, StoreError};

/// The longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// The longest name of a bucket, in bytes.
pub(super) const MAX_NAME: usize = 256;
/// The largest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// How many keys a module may have for one tenant, in all its buckets.
pub const MAX_KEYS: u64 = 100_000;
/// How many buckets a module may have for one tenant.
pub const MAX_BUCKETS: u64 = 100;
/// How many keys one call may name.
pub const MAX_BATCH: usize = 1000;
/// How many bytes of values one call may be answered with.
pub const MAX_READ: usize = 8 << 20;

/// Refuses a key that is too long.
pub fn check_key(key: &str) -> Result<()> {
    match key.len() {
        0..=MAX_KEY => Ok(()),
        long => refuse(format!("a key has {long} bytes, and may have {MAX_KEY}")),
    }
}

/// Refuses a value that is too large.
pub(crate) fn check_value(key: &str, value: &[u8]) -> Result<()> {
    match value.len() {
        0..=MAX_VALUE => Ok(()),
        large => refuse(format!("the value for `{key}` has {large} bytes, and may have {MAX_VALUE} (1 MiB)")),
    }
}

/// Refuses a batch of too many keys.
pub fn check_batch(keys: usize) -> Result<()> {
    match keys {
        0..=MAX_BATCH => Ok(()),
        many => refuse(format!("one call names {many} keys, and may name {MAX_BATCH}; do it in several")),
    }
}

pub(super) fn refuse<T>(why: String) -> Result<T> {
    Err(StoreError::Refused(why))
}

/// A size as people read it: `1.0 MiB`.
pub(super) fn size(bytes: impl TryInto<u64>) -> impl std::fmt::Display {
    ByteSize::b(bytes.try_into().unwrap_or(u64::MAX)).display().iec()
}
