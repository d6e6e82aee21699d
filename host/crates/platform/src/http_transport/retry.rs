//! When a call is tried again, and how long it waits before.

use std::time::Duration;

use http::StatusCode;

use super::failure::Failure;

/// How often a call is tried, and how long it waits in between.
///
/// The wait before attempt n+1 is a random time between nothing and `base_delay`·2ⁿ⁻¹ (full jitter), `max_delay` at
/// most. Where the platform sends `Retry-After`, that is waited, and a random time up to `base_delay` on top of it so
/// that not everybody comes back at once. No wait goes beyond the call's time limit: then the call fails right away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; 0 is taken as 1.
    pub attempts: u32,
    /// The longest wait before the second attempt.
    pub base_delay: Duration,
    /// The longest wait before any attempt, but for what the platform asks for.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 4, base_delay: Duration::from_millis(500), max_delay: Duration::from_secs(10) }
    }
}

/// Whether a call may be repeated when nobody knows if it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Carried out twice is the same as once: reads, and changes that state the new value.
    Safe,
    /// Carried out twice leaves two messages or two bills: only if it certainly was not carried out.
    IfNotCarriedOut,
}

impl RetryPolicy {
    /// How long to wait before the next attempt; none if the call has failed for good. `attempt` counts from 1,
    /// `remaining` is what the call's time limit leaves.
    pub(super) fn wait(
        &self,
        repeat: Repeat,
        attempt: u32,
        failure: &Failure,
        remaining: Duration,
    ) -> Option<Duration> {
        if attempt >= self.attempts || !can_help(repeat, failure) {
            return None;
        }
        let wait = match failure.retry_after() {
            Some(asked) => asked.saturating_add(up_to(self.base_delay)),
            None => up_to(self.ceiling(attempt)),
        };
        (wait < remaining).then_some(wait)
    }

    /// The longest wait after this attempt.
    fn ceiling(&self, attempt: u32) -> Duration {
        let doubled = 2u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base_delay.saturating_mul(doubled).min(self.max_delay)
    }
}

/// Whether another attempt is allowed and may end better.
fn can_help(repeat: Repeat, failure: &Failure) -> bool {
    match failure {
        Failure::NotSent(_) => true,
        Failure::Interrupted(_) => repeat == Repeat::Safe,
        Failure::Refused { retryable: false, .. } => false,
        Failure::Refused { status, retry_after, .. } => match *status {
            StatusCode::TOO_MANY_REQUESTS => true,
            // A server that says when to come back has not begun.
            StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => true,
            status => status.is_server_error() && repeat == Repeat::Safe,
        },
        Failure::TimedOut | Failure::TooLarge { .. } => false,
    }
}

/// A random time up to this one.
fn up_to(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 40, base_delay: Duration::from_millis(100), max_delay: Duration::from_secs(1) };

    fn too_many(retry_after: Option<Duration>) -> Failure {
        Failure::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, retryable: true, message: String::new() }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (attempt, ceiling) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (39, 1000)] {
            for _ in 0..200 {
                let wait = POLICY.wait(Repeat::Safe, attempt, &too_many(None), Duration::MAX).unwrap();
                assert!(wait <= Duration::from_millis(ceiling), "attempt {attempt} waited {wait:?}");
            }
        }
    }

    #[test]
    fn what_the_platform_asks_for_is_waited_at_least() {
        let asked = Duration::from_secs(7);
        for _ in 0..200 {
            let wait = POLICY.wait(Repeat::Safe, 1, &too_many(Some(asked)), Duration::from_secs(8)).unwrap();
            assert!(wait >= asked && wait <= asked + POLICY.base_delay);
        }
    }

    #[test]
    fn no_wait_goes_beyond_the_time_limit() {
        let asked = Some(Duration::from_secs(7));
        assert_eq!(POLICY.wait(Repeat::Safe, 1, &too_many(asked), Duration::from_secs(7)), None);
        assert_eq!(POLICY.wait(Repeat::Safe, 1, &too_many(Some(Duration::MAX)), Duration::from_secs(7)), None);
    }
}
