//! What the calls of a delivery use, held against its limits.
//!
//! The meter only counts. Whoever runs the guest asks [`UsageMeter::reached`] and ends the guest. Until then its calls are
//! answered with an error, so that none is made beyond a limit.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_platform::{CallError, ErrorKind};

/// What the calls of one attempt have used so far.
pub struct UsageMeter {
    limits: Limits,
    calls: AtomicU64,
    in_flight: AtomicU64,
    reached: OnceLock<LimitReached>,
}

impl UsageMeter {
    /// Nothing used yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, calls: AtomicU64::new(0), in_flight: AtomicU64::new(0), reached: OnceLock::new() }
    }

    /// What the delivery may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the first limit that was reached, if any: the guest has to end.
    pub fn reached(&self) -> Option<LimitReached> {
        self.reached.get().copied()
    }

    /// Notes that a limit is reached. Returns the error of the call.
    pub(crate) fn reach(&self, resource: Resource, wanted: Option<u64>) -> CallError {
        let limit = self.reached.get_or_init(|| self.limits.reached(resource, wanted));
        refused(*limit)
    }

    /// Counts a call with arguments of so many bytes.
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

    /// Counts a call in flight, whether or not that is an error: [`UsageMeter::left_flight`] has to follow.
    ///
    /// # Errors
    ///
    /// When there are too many now.
    pub(super) fn entered_flight(&self) -> Result<(), CallError> {
        self.check(Resource::ConcurrentCalls, self.in_flight.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Counts a call out that was in flight.
    pub(super) fn left_flight(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the number of calls in flight.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Refuses an answer of so many bytes if it is too large.
    pub(super) fn check_answer(&self, bytes: usize) -> Result<(), CallError> {
        self.check(Resource::Answers, bytes as u64)
    }

    /// Refuses a log of so many bytes if it is too large.
    pub(super) fn check_journal(&self, bytes: u64) -> Result<(), CallError> {
        self.check(Resource::Journal, bytes)
    }

    fn check(&self, resource: Resource, wanted: u64) -> Result<(), CallError> {
        if wanted > self.limits.amount(resource) { Err(self.reach(resource, Some(wanted))) } else { Ok(()) }
    }
}

fn refused(limit: LimitReached) -> CallError {
    CallError::new(ErrorKind::Invalid, format!("limit reached: {limit}"))
}
