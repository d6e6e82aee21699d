//! The clock of the engine.

use std::sync::Arc;

use modhost_core::clock::{Clock, to_millis};

/// The clock that decides when a retry is due and when a lease expires.
#[derive(Clone)]
pub(super) enum EngineClock {
    /// That of the database, so that hosts whose clocks differ agree.
    Database,
    /// One that a test sets.
    Set(Arc<dyn Clock>),
}

impl EngineClock {
    /// Returns parameter 1 of a statement: the time in milliseconds since 1970; `None` if the database's clock counts.
    pub(super) fn now(&self) -> Option<i64> {
        match self {
            Self::Database => None,
            Self::Set(clock) => Some(to_millis(clock.now())),
        }
    }
}
