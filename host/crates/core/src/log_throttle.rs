//! Lines of the log that a flood would repeat.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines of the same kind.
const BETWEEN: Duration = Duration::from_secs(10);

/// Says when a line may be written again, and how often it wasn't.
#[derive(Default)]
pub struct LogThrottle(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

/// How often a line was left out since it was last written; to be put behind it.
pub struct More(u64);

impl LogThrottle {
    /// Whether the line may be written now.
    pub fn now(&self) -> Option<More> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<More> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + BETWEEN) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(More(std::mem::take(&mut state.left_out)))
    }
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (and once more since the last line)"),
            more => write!(f, " (and {more} times more since the last line)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_number() {
        let (log_throttle, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(log_throttle.at(start).unwrap().to_string(), "");
        for _ in 0..3 {
            assert!(log_throttle.at(start + BETWEEN / 2).is_none());
        }
        assert_eq!(log_throttle.at(start + BETWEEN).unwrap().to_string(), " (and 3 times more since the last line)");
        assert_eq!(log_throttle.at(start + 2 * BETWEEN).unwrap().to_string(), "");
    }
}
