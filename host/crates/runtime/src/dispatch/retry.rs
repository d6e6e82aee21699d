//! When a delivery that failed is tried again.

use std::time::Duration;

/// How a module's deliveries are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many attempts there are, the first one included.
    pub attempts: u32,
    /// The longest wait before the second attempt; it doubles from there.
    pub first: Duration,
    /// The longest wait there is.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_secs(2), max: Duration::from_secs(300) }
    }
}

impl RetryPolicy {
    /// How long to wait after an attempt, counted from 1: any time up to the longest, so that what failed together
    /// doesn't come back together.
    pub(super) fn wait(&self, attempt: u32) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1)));
        doubled.min(self.max).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_have_an_end() {
        let policy = RetryPolicy::default();
        for (attempt, longest) in [(1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (u32::MAX, 300)] {
            let waits: Vec<Duration> = (0..200).map(|_| policy.wait(attempt)).collect();
            let longest = Duration::from_secs(longest);
            assert!(waits.iter().all(|wait| *wait <= longest), "attempt {attempt}");
            assert!(waits.iter().any(|wait| *wait > longest / 2), "attempt {attempt}");
            assert!(waits.iter().any(|wait| *wait < longest / 2), "attempt {attempt}");
        }
    }
}
