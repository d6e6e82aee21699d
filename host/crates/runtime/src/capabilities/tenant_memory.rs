//! Counts the memory of running deliveries: of one tenant, and of all tenants together. That is the memory of the guests,
//! and what the host holds for them: answers, requests, recorded calls, log lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use modhost_core::limits::LimitReached;
use modhost_core::memory_budget::MemoryCounter;
use modhost_core::sync::lock;

/// The total memory of the running deliveries of all tenants.
///
/// A tenant may use more than an equal share while others don't need it. But once three quarters are in use, only tenants
/// that stay within an equal share get more: the limit divided by the number of tenants that use memory, and one more. So
/// a single tenant gets three quarters at most, and one that comes later finds memory.
#[derive(Debug)]
pub struct GuestMemory {
    limit: u64,
    state: Mutex<Use>,
}

#[derive(Debug, Default)]
struct Use {
    bytes: u64,
    /// The number of tenants that use memory.
    tenants: u64,
}

/// The total memory of a tenant's running deliveries.
#[derive(Debug)]
pub struct TenantMemory {
    /// In bytes; `u64::MAX` if the tenant has no limit of its own. Changes only while `all.state` is locked.
    limit: AtomicU64,
    /// Changes only while `all.state` is locked.
    used: AtomicU64,
    all: Arc<GuestMemory>,
}

impl GuestMemory {
    /// Creates a counter with this limit, in bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    /// Creates the counter of a tenant. `limit` is in bytes; without one, only the memory of all tenants limits it.
    pub fn tenant(self: &Arc<Self>, limit: Option<u64>) -> Arc<TenantMemory> {
        let limit = AtomicU64::new(limit.unwrap_or(u64::MAX));
        Arc::new(TenantMemory { limit, used: AtomicU64::new(0), all: self.clone() })
    }
}

impl TenantMemory {
    /// Replaces the tenant's own limit, in bytes. The memory in use stays counted.
    pub fn set_limit(&self, limit: Option<u64>) {
        let _all = lock(&self.all.state);
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the memory in use, in bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the memory in use, in bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes this many bytes.
    ///
    /// # Errors
    ///
    /// When the tenant's limit or the limit of all tenants would be exceeded, or, with more than three quarters of the
    /// memory in use, an equal share.
    pub fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        let mut all = lock(&self.all.state);
        let before = self.used.load(Ordering::Relaxed);
        let own = before.saturating_add(bytes);
        let limit = self.limit.load(Ordering::Relaxed);
        if own > limit {
            return Err(LimitReached::TenantMemory(limit));
        }
        let total = all.bytes.saturating_add(bytes);
        let tenants = all.tenants + u64::from(before == 0);
        let limit = self.all.limit;
        if total > limit || total > limit - limit / 4 && own > limit / (tenants + 1) {
            return Err(LimitReached::GuestMemory(limit));
        }
        if bytes > 0 {
            *all = Use { bytes: total, tenants };
            self.used.store(own, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Releases this many bytes.
    pub fn release(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut all = lock(&self.all.state);
        let own = self.used.load(Ordering::Relaxed).saturating_sub(bytes);
        self.used.store(own, Ordering::Relaxed);
        all.bytes = all.bytes.saturating_sub(bytes);
        all.tenants -= u64::from(own == 0);
    }
}

impl MemoryCounter for TenantMemory {
    fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        Self::take(self, bytes)
    }

    fn release(&self, bytes: u64) {
        Self::release(self, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: LimitReached = LimitReached::GuestMemory(100);

    #[test]
    fn lends_idle_memory() {
        let all = GuestMemory::new(100);
        let (one, two) = (all.tenant(None), all.tenant(None));
        one.take(75).unwrap();
        assert_eq!(one.take(1), Err(ALL), "the last quarter is for others");
        two.take(25).unwrap();
        assert_eq!(two.take(1), Err(ALL));
        one.release(75);
        two.take(50).unwrap();
    }

    #[test]
    fn last_quarter_is_for_tenants_below_their_share() {
        let all = GuestMemory::new(100);
        let (large, small, other) = (all.tenant(None), all.tenant(None), all.tenant(None));
        large.take(70).unwrap();
        small.take(1).unwrap();
        assert_eq!(large.take(5), Err(ALL), "two tenants: it has more than a third");
        large.take(4).unwrap();
        small.take(20).unwrap();
        other.take(5).unwrap();
        assert_eq!(other.take(1), Err(ALL), "nothing is left");
        large.release(74);
        assert_eq!(small.take(60), Err(ALL), "two tenants: it would have more than a third");
        small.take(49).unwrap();
        other.take(20).unwrap();
    }

    #[test]
    fn own_limit_applies_too() {
        let all = GuestMemory::new(100);
        let (one, two) = (all.tenant(Some(10)), all.tenant(None));
        assert_eq!(one.take(11), Err(LimitReached::TenantMemory(10)));
        one.take(10).unwrap();
        assert_eq!(one.take(1), Err(LimitReached::TenantMemory(10)));
        two.take(60).unwrap();
        one.release(10);
        one.take(0).unwrap();
        assert_eq!(lock(&all.state).tenants, 1);
    }
}
