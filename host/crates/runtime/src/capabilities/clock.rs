//! The guest's clocks. Readings are recorded in the call log, so that a delivery that starts again reads the same
//! times.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::call_log::CallLog;

/// The wall clock, with readings from the call log.
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

/// A monotonic clock, with readings from the call log: nanoseconds since the delivery first started.
pub struct MonotonicClock {
    call_log: Arc<CallLog>,
    started: Instant,
    /// The last recorded reading; the real clock continues from it.
    last_recorded: std::sync::atomic::AtomicU64,
}

impl MonotonicClock {
    /// Creates a clock that starts now.
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
