//! Counts what an instance uses of its delivery's limits: memory, tables, and the time it runs.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::capabilities::TenantMemory;
use modhost_core::limits::{LimitReached, Limits, Resource};

/// How long a guest runs before it lets others have the thread; the length of an epoch.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The most that is charged for one turn on a thread: when a machine has too much to do, what a turn took beyond that
/// was waiting for it.
const MAX_TURN: Duration = Duration::from_millis(100);

/// How many memories an instance may have. Each takes gigabytes of the host's addresses, however little is in it; and whose
/// addresses are used up can't allocate anything any more.
pub(super) const MAX_MEMORIES: usize = 16;

/// Counts what an instance has, and remembers what it was refused: its own abort after that looks like any trap.
///
/// What was allowed counts even where the system then had no room for it. Wasmtime tells of that by the same calls as of
/// growth it has never asked for, so that whoever gave something back there could be made to do so without end.
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

    /// The growth that was refused, if any was.
    pub(super) fn refused(&self) -> Option<LimitReached> {
        self.refused
    }

    fn refuse(&mut self, limit: LimitReached) -> bool {
        self.refused = Some(limit);
        false
    }

    fn grow_memory(&mut self, more: u64) -> bool {
        let wanted = self.memory.saturating_add(more);
        if wanted > self.limits.amount(Resource::Memory) {
            return self.refuse(self.limits.reached(Resource::Memory, Some(wanted)));
        }
        if let Some(full) = self.tenant.as_ref().and_then(|tenant| tenant.take(more).err()) {
            return self.refuse(full);
        }
        self.memory = wanted;
        true
    }

    fn grow_tables(&mut self, more: u64) -> bool {
        let wanted = self.elements.saturating_add(more);
        if wanted > self.limits.amount(Resource::Tables) {
            return self.refuse(self.limits.reached(Resource::Tables, Some(wanted)));
        }
        self.elements = wanted;
        true
    }
}

/// Whether something would grow beyond the maximum it declares itself; then it doesn't, and no limit is reached by it.
fn beyond_its_own(desired: usize, maximum: Option<usize>) -> bool {
    maximum.is_some_and(|maximum| desired > maximum)
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        Ok(!beyond_its_own(desired, maximum) && self.grow_memory(more))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        Ok(!beyond_its_own(desired, maximum) && self.grow_tables(more))
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
            tenant.give_back(self.memory);
        }
    }
}

/// Counts how long a guest has run, the host's own work for it included, and says when that is too long.
///
/// A guest runs in turns, each a tick long at the most unless a call keeps the host busy. In between it waits.
pub(super) struct Clock<'a> {
    limits: &'a Limits,
    used: Duration,
}

impl<'a> Clock<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, used: Duration::ZERO }
    }

    /// Counts a turn in.
    pub(super) fn count(&mut self, turn: Duration) -> Result<(), LimitReached> {
        self.used += turn.min(MAX_TURN);
        if self.used > self.limits.time(Resource::Cpu) {
            return Err(self.limits.reached(Resource::Cpu, None));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 64 << 10;

    fn limiter(tenant: Option<&Arc<TenantMemory>>) -> Limiter {
        let limits = Limits::default().with(Resource::Memory, 4 * PAGE as u64).with(Resource::Tables, 10);
        Limiter::new(limits, tenant.cloned())
    }

    #[test]
    fn all_memories_count_together() {
        let mut limiter = limiter(None);
        assert!(!limiter.memory_growing(0, 2 * PAGE, Some(PAGE)).unwrap());
        assert_eq!(limiter.refused(), None, "its own maximum is no limit of ours");
        assert!(limiter.memory_growing(0, 3 * PAGE, None).unwrap());
        assert!(!limiter.memory_growing(0, 2 * PAGE, None).unwrap(), "another memory");
        assert!(limiter.refused().unwrap().to_string().starts_with("memory: it asked for 320.0 KiB"));
    }

    /// A table with 64-bit indices that is asked to grow beyond all numbers is told of without being asked about.
    #[test]
    fn what_was_never_asked_for_gives_nothing_back() {
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
    fn all_tables_count_together() {
        let mut limiter = limiter(None);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(!limiter.table_growing(0, 5, None).unwrap());
        assert!(limiter.refused().unwrap().to_string().starts_with("tables: it asked for 11 elements"));
    }

    #[test]
    fn a_tenant_has_its_memory_back_when_a_delivery_ends() {
        let tenant = Arc::new(TenantMemory::new(5 * PAGE as u64));
        let (mut one, mut other) = (limiter(Some(&tenant)), limiter(Some(&tenant)));
        assert!(one.memory_growing(0, 3 * PAGE, None).unwrap());
        assert!(!other.memory_growing(0, 3 * PAGE, None).unwrap());
        assert_eq!(other.refused(), Some(LimitReached::TenantMemory(5 * PAGE as u64)));
        drop(one);
        assert!(other.memory_growing(0, 3 * PAGE, None).unwrap());
    }

    #[test]
    fn a_turn_is_charged_within_reason() {
        let limits = Limits::default().with(Resource::Cpu, 250_000_000);
        let mut clock = Clock::new(&limits);
        assert_eq!(clock.count(Duration::from_secs(5)), Ok(()));
        assert_eq!(clock.count(Duration::from_millis(100)), Ok(()));
        assert!(clock.count(Duration::from_millis(60)).is_err());
    }
}
