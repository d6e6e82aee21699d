//! The memory that the running deliveries of one tenant share.

use std::sync::atomic::{AtomicU64, Ordering};

use modhost_core::limits::LimitReached;

/// The memory that all running deliveries of a tenant have together.
#[derive(Debug)]
pub struct TenantMemory {
    limit: u64,
    used: AtomicU64,
}

impl TenantMemory {
    /// None used of so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// How many bytes there may be.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    ///
    /// When they aren't left.
    pub fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| LimitReached::TenantMemory(self.limit))
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
