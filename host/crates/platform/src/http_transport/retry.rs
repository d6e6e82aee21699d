//! Whether a call is tried again, and the delay before.

use std::time::Duration;

use http::StatusCode;

use super::failure::Failure;
use modhost_core::backoff::{RetryPolicy, jitter};

/// Whether a call may be repeated when nobody knows if it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Carried out twice is the same as once: reads, and changes that state the new value.
    Safe,
    /// Carried out twice leaves two messages or two bills: only if it certainly was not carried out.
    IfNotCarriedOut,
}

/// Returns the delay before the next attempt; none if the call has failed for good. `attempt` counts from 1, `remaining` is
/// the rest of the call's time limit.
///
/// The delay is random, between zero and that of the policy. Where the platform sends `Retry-After`, the delay is that time
/// plus a random time up to the policy's first delay, so that not all callers return at once. No delay goes beyond the
/// call's time limit: the call fails right away instead.
pub(super) fn delay(
    policy: &RetryPolicy,
    repeat: Repeat,
    attempt: u32,
    failure: &Failure,
    remaining: Duration,
) -> Option<Duration> {
    if attempt >= policy.attempts || !can_help(repeat, failure) {
        return None;
    }
    let delay = match failure.retry_after() {
        Some(asked) => asked.saturating_add(jitter(policy.backoff.first)),
        None => policy.delay_after(attempt),
    };
    (delay < remaining).then_some(delay)
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

#[cfg(test)]
mod tests {
    use super::*;
    use modhost_core::backoff::Backoff;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 40, backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)) };

    fn too_many(retry_after: Option<Duration>) -> Failure {
        Failure::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, retryable: true, message: String::new() }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (attempt, ceiling) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (39, 1000)] {
            for _ in 0..200 {
                let wait = delay(&POLICY, Repeat::Safe, attempt, &too_many(None), Duration::MAX).unwrap();
                assert!(wait <= Duration::from_millis(ceiling), "attempt {attempt} waited {wait:?}");
            }
        }
    }

    #[test]
    fn what_the_platform_asks_for_is_waited_at_least() {
        let asked = Duration::from_secs(7);
        for _ in 0..200 {
            let wait = delay(&POLICY, Repeat::Safe, 1, &too_many(Some(asked)), Duration::from_secs(8)).unwrap();
            assert!(wait >= asked && wait <= asked + POLICY.backoff.first);
        }
    }

    #[test]
    fn no_wait_goes_beyond_the_time_limit() {
        let asked = Some(Duration::from_secs(7));
        assert_eq!(delay(&POLICY, Repeat::Safe, 1, &too_many(asked), Duration::from_secs(7)), None);
        assert_eq!(delay(&POLICY, Repeat::Safe, 1, &too_many(Some(Duration::MAX)), Duration::from_secs(7)), None);
    }
}
