//! Limits what a tenant's modules write to the host's log.

use modhost_core::event::Name;
use modhost_core::log_throttle::LogThrottle;
use modhost_core::rate::RateLimiter;

/// The bytes counted for a line besides its text and context: the time, the names and the ids.
const LINE_BYTES: usize = 160;

/// What the modules of a tenant may write to the host's log. Its disk and its reader are shared by all tenants.
pub struct TenantLog {
    rate: RateLimiter,
    log_throttle: LogThrottle,
}

impl TenantLog {
    /// Creates a limit of this many bytes per second on average, with bursts of five seconds' worth.
    pub fn new(bytes_per_second: u32) -> Self {
        Self { rate: RateLimiter::new(bytes_per_second), log_throttle: LogThrottle::default() }
    }

    /// Returns the limit in bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.rate.per_second()
    }

    /// Counts a line of this size. Returns whether it may be written to the host's log.
    pub(super) fn admits(&self, tenant: &Name, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes.saturating_add(LINE_BYTES)).unwrap_or(u32::MAX);
        let admitted = self.rate.take_many(bytes).is_ok();
        if !admitted && let Some(lines) = self.log_throttle.now() {
            let suppressed = lines.suppressed();
            tracing::warn!(%tenant, suppressed, "the tenant logs faster than its `limits.log_rate`; lines are left out");
        }
        admitted
    }
}
