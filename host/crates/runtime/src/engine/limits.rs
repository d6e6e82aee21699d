//! Counts the memory, table elements and CPU time of an instance against its delivery's limits.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::capabilities::TenantMemory;
use modhost_core::limits::{LimitReached, Limits, Resource};

/// The length of an epoch: a guest yields its thread after this time.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The maximum number of memories of an instance. Each reserves gigabytes of the host's address space, however little
/// it uses, and a process without free address space can't allocate anything.
pub(super) const MAX_MEMORIES: usize = 16;

/// Counts an instance's memory and table elements, and remembers a refused growth: the guest's abort after the refusal
/// looks like any other trap.
///
/// Growth that was allowed stays counted even if the allocation then failed. Wasmtime reports failed allocations
/// through the same callbacks as growth that it never asked the limiter about, so subtracting there would let a guest
/// lower its count without bound.
pub(super) struct Limiter {
    limits: Limits,
    memory: u64,
    elements: u64,
    tenant: Option<Arc<TenantMemory>>,
    refused: Option<LimitReached>,
}

impl Limiter {
    pub(super) fn new(limits: Limits, tenant: Option<Arc<TenantMemory>>) -> Self {
        Self { limits, memory: 0, elements: 0, tenant, refused: None }
    }

    /// Returns the limit that refused a growth, if any.
    pub(super) fn refused(&self) -> Option<LimitReached> {
        self.refused
    }

    fn refuse(&mut self, limit: LimitReached) -> bool {
        self.refused = Some(limit);
        false
    }

    fn grow_memory(&mut self, added: u64) -> bool {
        let total = self.memory.saturating_add(added);
        if total > self.limits.amount(Resource::Memory) {
            return self.refuse(self.limits.reached(Resource::Memory, Some(total)));
        }
        if let Some(full) = self.tenant.as_ref().and_then(|tenant| tenant.take(added).err()) {
            return self.refuse(full);
        }
        self.memory = total;
        true
    }

    fn grow_tables(&mut self, added: u64) -> bool {
        let total = self.elements.saturating_add(added);
        if total > self.limits.amount(Resource::Tables) {
            return self.refuse(self.limits.reached(Resource::Tables, Some(total)));
        }
        self.elements = total;
        true
    }
}

/// Whether growth would exceed the maximum that the memory or table itself declares. Such growth fails without reaching
/// a limit of the host.
fn exceeds_declared_maximum(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_some_and(|maximum| desired > maximum)
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let added = desired.saturating_sub(current) as u64;
        Ok(!exceeds_declared_maximum(desired, maximum) && self.grow_memory(added))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let added = desired.saturating_sub(current) as u64;
        Ok(!exceeds_declared_maximum(desired, maximum) && self.grow_tables(added))
    }

    fn instances(&self) -> usize {
        self.limits.size(Resource::Instances)
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        if let Some(tenant) = &self.tenant {
            tenant.release(self.memory);
        }
    }
}

/// Counts a guest's CPU time, including the host's work on its behalf.
///
/// Each poll of the guest lasts at most one tick, unless a call keeps the host busy. Time between polls doesn't count.
pub(super) struct Clock<'a> {
    limits: &'a Limits,
    used: Duration,
}

impl<'a> Clock<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, used: Duration::ZERO }
    }

    /// Adds the CPU time of a poll; fails if the CPU limit is exceeded.
    pub(super) fn count(&mut self, poll: Duration) -> Result<(), LimitReached> {
        self.used += poll;
        if self.used > self.limits.time(Resource::Cpu) {
            return Err(self.limits.reached(Resource::Cpu, None));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::GuestMemory;

    const PAGE: usize = 64 << 10;

    fn limiter(tenant: Option<&Arc<TenantMemory>>) -> Limiter {
        let limits = Limits::default().with(Resource::Memory, 4 * PAGE as u64).with(Resource::Tables, 10);
        Limiter::new(limits, tenant.cloned())
    }

    #[test]
    fn limits_the_sum_of_all_memories() {
        let mut limiter = limiter(None);
        assert!(!limiter.memory_growing(0, 2 * PAGE, Some(PAGE)).unwrap());
        assert_eq!(limiter.refused(), None, "exceeding the memory's own maximum must not count as a limit of the host");
        assert!(limiter.memory_growing(0, 3 * PAGE, None).unwrap());
        assert!(!limiter.memory_growing(0, 2 * PAGE, None).unwrap(), "the limit must apply to the sum of all memories");
        assert!(limiter.refused().unwrap().to_string().starts_with("memory: it asked for 320.0 KiB"));
    }

    /// If a table with 64-bit indices grows by more than fits a `usize`, Wasmtime calls `table_grow_failed` without
    /// having called `table_growing`.
    #[test]
    fn failed_growth_does_not_lower_the_count() {
        let mut limiter = limiter(None);
        for _ in 0..5 {
            assert!(limiter.table_growing(0, 2, None).unwrap());
            limiter.table_grow_failed(wasmtime::Error::msg("overflow")).unwrap();
            limiter.memory_grow_failed(wasmtime::Error::msg("overflow")).unwrap();
        }
        assert!(!limiter.table_growing(0, 2, None).unwrap());
        assert!(limiter.refused().unwrap().to_string().starts_with("tables: it asked for 12 elements"));
    }

    #[test]
    fn limits_the_sum_of_all_tables() {
        let mut limiter = limiter(None);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(!limiter.table_growing(0, 5, None).unwrap());
        assert!(limiter.refused().unwrap().to_string().starts_with("tables: it asked for 11 elements"));
    }

    #[test]
    fn releases_tenant_memory_when_a_delivery_ends() {
        let tenant = GuestMemory::new(u64::MAX).tenant(Some(5 * PAGE as u64));
        let (mut one, mut other) = (limiter(Some(&tenant)), limiter(Some(&tenant)));
        assert!(one.memory_growing(0, 3 * PAGE, None).unwrap());
        assert!(!other.memory_growing(0, 3 * PAGE, None).unwrap());
        assert_eq!(other.refused(), Some(LimitReached::TenantMemory(5 * PAGE as u64)));
        drop(one);
        assert!(other.memory_growing(0, 3 * PAGE, None).unwrap());
    }

    #[test]
    fn adds_the_time_of_all_polls() {
        let limits = Limits::default().with(Resource::Cpu, 250_000_000);
        let mut clock = Clock::new(&limits);
        assert_eq!(clock.count(Duration::from_millis(150)), Ok(()));
        assert_eq!(clock.count(Duration::from_millis(100)), Ok(()));
        assert!(clock.count(Duration::from_nanos(1)).is_err());
    }
}
