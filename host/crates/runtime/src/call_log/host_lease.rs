//! The lease of one life of a host on everything that it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use modhost_core::clock::Clock;

/// How long a host may rely on its lease after the heartbeat that extended it was sent: less than the lease itself, so
/// that a host that is cut off stops before another one takes its deliveries over.
pub const RELY_FOR: Duration = Duration::from_secs(25);

/// The lease of one life of a host: as long as it holds, no other host runs what this host runs.
///
/// It counts by a clock that nobody can set and that also counts while the machine is suspended, from the time at which
/// the last confirmed heartbeat was *sent*. So it ends before the lease that the storage engine has recorded, whatever
/// the network or the machine does meanwhile.
pub struct HostLease {
    owner: Arc<str>,
    clock: Arc<dyn Clock>,
    /// Until when the lease holds, in milliseconds of [`Clock::since_boot`].
    until: AtomicU64,
    /// Canceled when the lease has ended. It doesn't begin again.
    ended: CancellationToken,
}

impl HostLease {
    /// Creates a lease that was requested at this time of [`Clock::since_boot`].
    pub fn new(owner: Arc<str>, clock: Arc<dyn Clock>, sent: Duration) -> Self {
        let lease = Self { owner, clock, until: AtomicU64::new(0), ended: CancellationToken::new() };
        lease.extend(sent);
        lease
    }

    /// Creates a lease that never expires, for a storage that no other host can use.
    pub fn unlimited(owner: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self { owner, clock, until: AtomicU64::new(u64::MAX), ended: CancellationToken::new() }
    }

    /// Returns the owner of the leases of this life.
    pub fn owner(&self) -> &Arc<str> {
        &self.owner
    }

    /// Extends the lease, as a heartbeat that was sent at this time has been confirmed. A lease that has ended stays
    /// ended.
    pub fn extend(&self, sent: Duration) {
        self.until.fetch_max(millis(sent + RELY_FOR), Ordering::AcqRel);
    }

    /// Returns whether the lease holds now. Cheap: called before each change leaves the host.
    pub fn holds(&self) -> bool {
        !self.ended.is_cancelled() && millis(self.clock.since_boot()) < self.until.load(Ordering::Acquire)
    }

    /// Ends the lease: everything that runs under it stops.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Returns the token that is canceled when the lease ends.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl fmt::Debug for HostLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostLease").field("owner", &self.owner).field("holds", &self.holds()).finish_non_exhaustive()
    }
}

/// Returns a duration in whole milliseconds, rounded down: a lease never holds for longer than it was given.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use modhost_core::clock::ManualClock;

    use super::*;

    #[test]
    fn holds_from_the_time_the_heartbeat_was_sent() {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        let lease = HostLease::new("a".into(), clock.clone(), clock.since_boot());
        clock.advance(Duration::from_secs(10));
        let sent = clock.since_boot();
        clock.advance(Duration::from_secs(14));
        lease.extend(sent);
        lease.extend(Duration::ZERO);
        clock.advance(RELY_FOR - Duration::from_secs(14) - Duration::from_millis(1));
        assert!(lease.holds());
        clock.advance(Duration::from_millis(1));
        assert!(!lease.holds());
        lease.end();
        lease.extend(clock.since_boot());
        assert!(!lease.holds(), "a lease that has ended doesn't begin again");
        let unlimited = HostLease::unlimited("a".into(), clock.clone());
        clock.advance(Duration::from_secs(1 << 30));
        assert!(unlimited.holds());
    }
}
