//! Budget for all request bodies in memory together: each body has its own limit, but a thousand slow clients could use
//! it a thousand times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use modhost_core::log_throttle::LogThrottle;

/// Bytes of a body that don't count against the budget. Most events are smaller, so large bodies that exhaust the
/// budget don't block them.
const FREE_BYTES: u64 = 16 << 10;

/// The bytes that request bodies take beyond [`FREE_BYTES`] each.
#[derive(Default)]
pub(super) struct BodyBudget {
    reserved: AtomicU64,
    line: LogThrottle,
}

/// The bytes reserved for one request's body; released when the request is answered.
pub(super) struct Reservation {
    budget: Arc<BodyBudget>,
    size: AtomicU64,
    limit: u64,
}

impl BodyBudget {
    /// Creates the reservation of a new request. `limit` is the budget of all bodies together, in bytes.
    pub fn reserve(self: &Arc<Self>, limit: u64) -> Arc<Reservation> {
        Arc::new(Reservation { budget: self.clone(), size: AtomicU64::new(0), limit })
    }
}

impl Reservation {
    /// Reserves `bytes` more bytes; returns `false` if that exceeds the budget.
    pub fn grow(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let before = self.size.fetch_add(bytes, Ordering::Relaxed);
        let added = counted_bytes(before + bytes) - counted_bytes(before);
        if added == 0 {
            return true;
        }
        let reserved = self.budget.reserved.fetch_add(added, Ordering::Relaxed) + added;
        if reserved <= self.limit {
            return true;
        }
        if let Some(more) = self.budget.line.now() {
            tracing::warn!(
                suppressed = more.suppressed(),
                "requests refused for now: `max_bodies` in [server.limits] is reached"
            );
        }
        false
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(counted_bytes(*self.size.get_mut()), Ordering::Relaxed);
    }
}

fn counted_bytes(size: u64) -> u64 {
    size.saturating_sub(FREE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_the_budget_and_small_ones_are_free() {
        let budget = Arc::new(BodyBudget::default());
        let large = budget.reserve(100 << 10);
        assert!(large.grow(116 << 10), "the whole budget plus the free bytes");
        let next = budget.reserve(100 << 10);
        assert!(next.grow(16 << 10) && !next.grow(1));
        drop(next);
        let small = budget.reserve(100 << 10);
        assert!(small.grow(8 << 10) && small.grow(8 << 10));
        drop(large);
        assert!(small.grow(100 << 10), "dropping a reservation releases its bytes");
        drop(small);
        assert_eq!(budget.reserved.load(Ordering::Relaxed), 0);
    }
}
