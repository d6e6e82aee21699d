//! Limits how often a log line repeats.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Minimum time between two lines of one throttle.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Decides whether a log line may be written, and counts the lines that were not.
#[derive(Default)]
pub struct LogThrottle(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

/// The number of lines suppressed since the last written one, for a field of the next line.
pub struct Suppressed(u64);

impl LogThrottle {
    /// Returns the number of suppressed lines if a line may be written now, else `None`.
    pub fn now(&self) -> Option<Suppressed> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<Suppressed> {
        let mut state = lock(&self.0);
        if state.last.is_some_and(|last| now < last + MIN_INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(Suppressed(std::mem::take(&mut state.suppressed)))
    }
}

impl Suppressed {
    /// Returns the number for a field of the line; `None` if it is 0.
    pub fn suppressed(&self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_suppressed_lines() {
        let (log_throttle, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(log_throttle.at(start).unwrap().suppressed(), None);
        for _ in 0..3 {
            assert!(log_throttle.at(start + MIN_INTERVAL / 2).is_none());
        }
        assert_eq!(log_throttle.at(start + MIN_INTERVAL).unwrap().suppressed(), Some(3));
        assert_eq!(log_throttle.at(start + 2 * MIN_INTERVAL).unwrap().suppressed(), None);
    }
}
