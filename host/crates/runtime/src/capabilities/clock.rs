//! The clocks a guest reads: part of the record, so that a delivery that starts again sees what it saw before.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::call_log::CallLog;

/// The wall clock, read through the record.
pub struct WallClock(pub Arc<CallLog>);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let real = || self.0.wall_time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_nanos(self.0.reading(|| u64::try_from(real().as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A clock that never goes back, read through the record: nanoseconds since the delivery first began to run.
pub struct MonotonicClock {
    call_log: Arc<CallLog>,
    started: Instant,
    /// The last recorded reading: the real clock goes on from there.
    last_recorded: std::sync::atomic::AtomicU64,
}

impl MonotonicClock {
    /// A clock that starts now.
    pub fn new(call_log: Arc<CallLog>) -> Self {
        Self { call_log, started: Instant::now(), last_recorded: 0.into() }
    }
}

impl HostMonotonicClock for MonotonicClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let replayed = self.call_log.replays_clocks();
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let reading = self.call_log.reading(|| self.last_recorded.load(Relaxed).saturating_add(elapsed));
        if replayed {
            self.last_recorded.fetch_max(reading, Relaxed);
        }
        reading
    }
}
