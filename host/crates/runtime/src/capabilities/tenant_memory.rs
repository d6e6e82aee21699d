//! Counts the memory that the running deliveries of one tenant share.

use std::sync::atomic::{AtomicU64, Ordering};

use modhost_core::limits::LimitReached;

/// The total memory of a tenant's running deliveries.
#[derive(Debug)]
pub struct TenantMemory {
    limit: u64,
    used: AtomicU64,
}

impl TenantMemory {
    /// Creates a counter with this limit, in bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// Returns the limit, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes this many bytes.
    ///
    /// # Errors
    ///
    /// When fewer are left.
    pub fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        let add = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.map(drop).map_err(|_| LimitReached::TenantMemory(self.limit))
    }

    /// Releases this many bytes.
    pub fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
