//! How much all bodies on their way may take together: each has its own limit, and a thousand slow ones have a thousand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use modhost_core::log_throttle::LogThrottle;

/// What a body may take whatever the others take, in bytes: most events are smaller, and those who fill the rest keep
/// none of them out.
const ALWAYS: u64 = 16 << 10;

/// What the bodies on their way take, beyond what each may always take.
#[derive(Default)]
pub(super) struct BodyBudget {
    taken: AtomicU64,
    line: LogThrottle,
}

/// What one request's body takes; given back when the request is answered.
pub(super) struct Reservation {
    bodies: Arc<BodyBudget>,
    size: AtomicU64,
    limit: u64,
}

impl BodyBudget {
    /// The share of a new request; `limit` is how much all may take together, in bytes.
    pub fn share(self: &Arc<Self>, limit: u64) -> Arc<Reservation> {
        Arc::new(Reservation { bodies: self.clone(), size: AtomicU64::new(0), limit })
    }
}

impl Reservation {
    /// Takes in so many bytes; false if there is no room for them.
    pub fn grow(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let before = self.size.fetch_add(bytes, Ordering::Relaxed);
        let more = beyond(before + bytes) - beyond(before);
        if more == 0 {
            return true;
        }
        let taken = self.bodies.taken.fetch_add(more, Ordering::Relaxed) + more;
        if taken <= self.limit {
            return true;
        }
        if let Some(more) = self.bodies.line.now() {
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
        self.bodies.taken.fetch_sub(beyond(*self.size.get_mut()), Ordering::Relaxed);
    }
}

fn beyond(size: u64) -> u64 {
    size.saturating_sub(ALWAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_the_room_and_small_ones_need_none() {
        let bodies = Arc::new(BodyBudget::default());
        let large = bodies.share(100 << 10);
        assert!(large.grow(116 << 10), "all there is, and what each may always take");
        let next = bodies.share(100 << 10);
        assert!(next.grow(16 << 10) && !next.grow(1));
        drop(next);
        let small = bodies.share(100 << 10);
        assert!(small.grow(8 << 10) && small.grow(8 << 10));
        drop(large);
        assert!(small.grow(100 << 10), "what was taken is given back");
        drop(small);
        assert_eq!(bodies.taken.load(Ordering::Relaxed), 0);
    }
}
