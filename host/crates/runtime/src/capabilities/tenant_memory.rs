//! Counts the memory of running deliveries: of one tenant, and of all tenants together. That is the memory of the guests,
//! and what the host holds for them: answers, requests, recorded calls, log lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use modhost_core::fair_share;
use modhost_core::limits::LimitReached;
use modhost_core::memory_budget::MemoryCounter;
use modhost_core::sync::lock;

/// The total memory of the running deliveries of all tenants, which share it as [`fair_share`] says.
#[derive(Debug)]
pub struct GuestMemory {
    limit: u64,
    /// The bytes in use.
    used: Mutex<u64>,
}

/// The total memory of a tenant's running deliveries.
#[derive(Debug)]
pub struct TenantMemory {
    /// In bytes; `u64::MAX` if the tenant has no limit of its own. Changes only while `all.used` is locked.
    limit: AtomicU64,
    /// Changes only while `all.used` is locked.
    used: AtomicU64,
    all: Arc<GuestMemory>,
}

impl GuestMemory {
    /// Creates a counter with this limit, in bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::default() })
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
        let _all = lock(&self.all.used);
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the memory in use, in bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes this many bytes.
    ///
    /// # Errors
    ///
    /// When the tenant's limit or its share of the memory of all tenants would be exceeded.
    pub fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        let mut all = lock(&self.all.used);
        let own = self.used.load(Ordering::Relaxed).saturating_add(bytes);
        let limit = self.limit.load(Ordering::Relaxed);
        if own > limit {
            return Err(LimitReached::TenantMemory(limit));
        }
        let total = all.saturating_add(bytes);
        if bytes > 0 && !fair_share::allows(self.all.limit, total, own) {
            return Err(LimitReached::GuestMemory(self.all.limit));
        }
        *all = total;
        self.used.store(own, Ordering::Relaxed);
        Ok(())
    }

    /// Releases this many bytes.
    pub fn release(&self, bytes: u64) {
        let mut all = lock(&self.all.used);
        let own = self.used.load(Ordering::Relaxed).saturating_sub(bytes);
        self.used.store(own, Ordering::Relaxed);
        *all = all.saturating_sub(bytes);
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
    fn lends_idle_memory_and_leaves_some() {
        let all = GuestMemory::new(100);
        let [one, two, three] = [(); 3].map(|()| all.tenant(None));
        one.take(75).unwrap();
        assert_eq!(one.take(1), Err(ALL), "three times what is left");
        two.take(18).unwrap();
        assert_eq!(two.take(1), Err(ALL));
        three.take(5).unwrap();
        one.release(75);
        two.take(39).unwrap();
        assert_eq!((two.used(), three.used()), (57, 5));
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
        assert_eq!((one.used(), *lock(&all.used)), (0, 60));
        one.set_limit(None);
        one.take(20).unwrap();
    }
}
