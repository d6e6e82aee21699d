//! Retry policies: exponential backoff, jitter, and the number of attempts.

use std::time::Duration;

/// Exponential backoff: the delay doubles with every consecutive failure, up to a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub first: Duration,
    /// The longest delay.
    pub max: Duration,
}

impl Backoff {
    /// Creates a backoff from its first and its longest delay.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// Returns the delay without jitter after a failure; `before` is the number of consecutive failures before it.
    pub fn delay(&self, before: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(before)).min(self.max)
    }

    /// Returns a random delay between zero and [`Backoff::delay`], so that callers that failed together don't retry
    /// together.
    pub fn full_jitter(&self, before: u32) -> Duration {
        jitter(self.delay(before))
    }

    /// Returns a random delay between half of [`Backoff::delay`] and all of it, so that no retry is immediate.
    pub fn equal_jitter(&self, before: u32) -> Duration {
        let half = self.delay(before) / 2;
        half + jitter(half)
    }
}

/// Returns a random duration between zero and `max`.
pub fn jitter(max: Duration) -> Duration {
    max.mul_f64(fastrand::f64())
}

/// The maximum number of attempts of an operation, and the backoff between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The number of attempts, the first one included; 0 counts as 1.
    pub attempts: u32,
    /// The upper bounds of the delays. Each delay has full jitter.
    pub backoff: Backoff,
}

impl RetryPolicy {
    /// The default for the deliveries of a module.
    pub const DELIVERY: Self =
        Self { attempts: 5, backoff: Backoff::new(Duration::from_secs(2), Duration::from_secs(300)) };

    /// The default for requests to a platform.
    pub const REQUEST: Self =
        Self { attempts: 4, backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(10)) };

    /// Returns a random delay before the attempt after `attempt`, which counts from 1.
    pub fn delay_after(&self, attempt: u32) -> Duration {
        self.backoff.full_jitter(attempt.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

    #[test]
    fn doubles_up_to_the_maximum() {
        for (before, delay) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1000), (u32::MAX, 1000)] {
            assert_eq!(BACKOFF.delay(before), Duration::from_millis(delay), "after {before} failures");
        }
        let no_delay = Backoff::new(Duration::ZERO, Duration::MAX);
        assert_eq!(no_delay.delay(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn limits_delay_to_maximum_below_first() {
        assert_eq!(Backoff::new(Duration::from_secs(5), Duration::from_secs(1)).delay(0), Duration::from_secs(1));
    }

    #[test]
    fn spreads_full_jitter_over_the_whole_delay() {
        let delays: Vec<Duration> = (0..200).map(|_| BACKOFF.full_jitter(2)).collect();
        let longest = Duration::from_millis(400);
        assert!(delays.iter().all(|delay| *delay <= longest));
        assert!(delays.iter().any(|delay| *delay > longest / 2));
        assert!(delays.iter().any(|delay| *delay < longest / 2));
    }

    #[test]
    fn spreads_equal_jitter_over_the_upper_half() {
        let (shortest, longest) = (Duration::from_millis(200), Duration::from_millis(400));
        assert!((0..200).map(|_| BACKOFF.equal_jitter(2)).all(|delay| (shortest..=longest).contains(&delay)));
    }

    #[test]
    fn delays_deliveries_from_two_seconds_to_five_minutes() {
        for (attempt, longest) in [(1, 2), (2, 4), (3, 8), (8, 256), (9, 300), (u32::MAX, 300)] {
            let longest = Duration::from_secs(longest);
            assert_eq!(RetryPolicy::DELIVERY.backoff.delay(attempt - 1), longest);
            assert!(RetryPolicy::DELIVERY.delay_after(attempt) <= longest);
        }
    }
}
