//! Meters the resource usage of a delivery's calls against its limits.
//!
//! The meter only counts. The code that runs the guest checks [`UsageMeter::reached`] and ends the guest. Until then,
//! the guest's calls fail with an error, so that none exceeds a limit.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_core::memory_budget::{MemoryBudget, MemoryCounter};
use modhost_platform::{CallError, ErrorKind};

/// The resource usage of the calls of one attempt.
pub struct UsageMeter {
    limits: Limits,
    calls: AtomicU64,
    in_flight: AtomicU64,
    /// The memory of the tenant's deliveries, which includes what the host holds for this one.
    memory: MemoryBudget,
    reached: OnceLock<LimitReached>,
}

impl UsageMeter {
    /// Creates a meter at zero.
    pub(super) fn new(limits: Limits, memory: MemoryBudget) -> Self {
        Self { limits, calls: AtomicU64::new(0), in_flight: AtomicU64::new(0), memory, reached: OnceLock::new() }
    }

    /// Returns the limits of the delivery.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the first limit that was reached, if any; the guest has to end then.
    pub fn reached(&self) -> Option<LimitReached> {
        self.reached.get().copied()
    }

    /// Records that a limit of the delivery is reached. Returns the error for the call.
    pub(crate) fn reach(&self, resource: Resource, wanted: Option<u64>) -> CallError {
        self.reach_limit(self.limits.reached(resource, wanted))
    }

    /// Records that a limit is reached. Returns the error for the call.
    pub(super) fn reach_limit(&self, limit: LimitReached) -> CallError {
        refused(*self.reached.get_or_init(|| limit))
    }

    /// Counts a call with arguments of this size in bytes.
    ///
    /// # Errors
    ///
    /// When a limit was reached before, or this call reaches one.
    pub(super) fn count_call(&self, arguments: usize) -> Result<(), CallError> {
        if let Some(limit) = self.reached() {
            return Err(refused(limit));
        }
        self.check(Resource::Arguments, arguments as u64)?;
        self.check(Resource::Calls, self.calls.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Counts a call as in flight, even if this returns an error: [`UsageMeter::left_flight`] must follow in either
    /// case.
    ///
    /// # Errors
    ///
    /// When too many calls are in flight.
    pub(super) fn entered_flight(&self) -> Result<(), CallError> {
        self.check(Resource::ConcurrentCalls, self.in_flight.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Counts a call as no longer in flight.
    pub(super) fn left_flight(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the number of calls in flight.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Checks the size of an answer, in bytes.
    ///
    /// # Errors
    ///
    /// When it is too large.
    pub(super) fn check_answer(&self, bytes: usize) -> Result<(), CallError> {
        self.check(Resource::Answers, bytes as u64)
    }

    /// Checks the size of the log, in bytes.
    ///
    /// # Errors
    ///
    /// When it is too large.
    pub(super) fn check_journal(&self, bytes: u64) -> Result<(), CallError> {
        self.check(Resource::Journal, bytes)
    }

    fn check(&self, resource: Resource, wanted: u64) -> Result<(), CallError> {
        if wanted > self.limits.amount(resource) { Err(self.reach(resource, Some(wanted))) } else { Ok(()) }
    }
}

/// What the host holds for the attempt counts as memory of its tenant. If there is none left, the guest ends, as if it had
/// asked for the memory itself.
impl MemoryCounter for UsageMeter {
    fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        self.memory.take(bytes).inspect_err(|limit| {
            self.reached.get_or_init(|| *limit);
        })
    }

    fn release(&self, bytes: u64) {
        self.memory.release(bytes);
    }
}

/// Returns the error of a call that a limit refuses.
pub(crate) fn refused(limit: LimitReached) -> CallError {
    CallError::new(ErrorKind::Invalid, format!("limit reached: {limit}"))
}
