//! What the calls of a delivery use, held against its limits.
//!
//! Only counting happens here: whoever runs the guest asks [`UsageMeter::reached`] and ends it. Until then its calls are
//! answered with an error, so that none is made beyond a limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::CallLog;
use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_platform::{CallError, ErrorKind};

/// What the calls of one attempt have used so far.
pub struct UsageMeter {
    limits: Limits,
    calls: AtomicU64,
    in_flight: AtomicU64,
    reached: OnceLock<LimitReached>,
}

/// A call in flight, for as long as it is held.
pub(super) struct InFlight(Arc<CallLog>);

impl UsageMeter {
    /// Nothing used yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, calls: AtomicU64::new(0), in_flight: AtomicU64::new(0), reached: OnceLock::new() }
    }

    /// What the delivery may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The first limit that was reached, if any was: then the guest is to end.
    pub fn reached(&self) -> Option<LimitReached> {
        self.reached.get().copied()
    }

    /// Notes that a limit is reached; answers with what the call is to fail with.
    pub(super) fn reach(&self, resource: Resource, wanted: Option<u64>) -> CallError {
        let limit = self.reached.get_or_init(|| self.limits.reached(resource, wanted));
        CallError::new(ErrorKind::Invalid, format!("limit reached: {limit}"))
    }

    /// Refuses an answer of so many bytes if it is too large.
    pub(super) fn check_answer(&self, bytes: usize) -> Result<(), CallError> {
        self.check(Resource::Answers, bytes as u64)
    }

    /// Refuses more bytes of record than there may be.
    pub(super) fn check_journal(&self, bytes: u64) -> Result<(), CallError> {
        self.check(Resource::Journal, bytes)
    }

    fn check(&self, resource: Resource, wanted: u64) -> Result<(), CallError> {
        if wanted > self.limits.amount(resource) { Err(self.reach(resource, Some(wanted))) } else { Ok(()) }
    }
}

impl InFlight {
    /// Counts a call with so many bytes of arguments in.
    ///
    /// # Errors
    ///
    /// When there may be no such call, or a limit was reached before.
    pub(super) fn begin(call_log: &Arc<CallLog>, arguments: usize) -> Result<Self, CallError> {
        let usage = call_log.usage();
        if let Some(limit) = usage.reached() {
            return Err(CallError::new(ErrorKind::Invalid, format!("limit reached: {limit}")));
        }
        usage.check(Resource::Arguments, arguments as u64)?;
        usage.check(Resource::Calls, usage.calls.fetch_add(1, Ordering::Relaxed) + 1)?;
        let call = Self(call_log.clone());
        usage.check(Resource::ConcurrentCalls, usage.in_flight.fetch_add(1, Ordering::Relaxed) + 1)?;
        Ok(call)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.usage().in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

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
