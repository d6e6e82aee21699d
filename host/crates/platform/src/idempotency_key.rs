//! The idempotency key of a call.

use std::fmt;
use std::sync::Arc;

/// Identifies a call, also when it is repeated. It is formatted when a request needs it: that takes a hash, and many calls
/// never leave the host or go to a platform without such keys. Cheap to clone.
#[derive(Clone)]
pub struct IdempotencyKey(Arc<dyn KeySource>);

/// Formats the idempotency key of one call.
pub trait KeySource: Send + Sync {
    /// Returns the key, the same one each time.
    fn key(&self) -> String;
}

impl KeySource for String {
    fn key(&self) -> String {
        self.clone()
    }
}

impl IdempotencyKey {
    /// Creates the key that `source` formats.
    pub fn new(source: Arc<dyn KeySource>) -> Self {
        Self(source)
    }
}

impl From<String> for IdempotencyKey {
    fn from(key: String) -> Self {
        Self(Arc::new(key))
    }
}

impl From<&str> for IdempotencyKey {
    fn from(key: &str) -> Self {
        key.to_owned().into()
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.key())
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.key(), f)
    }
}

impl PartialEq for IdempotencyKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.key() == other.0.key()
    }
}

impl Eq for IdempotencyKey {}
