//! Whether a call is retried, and the delay before the retry.

use std::time::Duration;

use http::StatusCode;

use super::failure::Failure;
use modhost_core::backoff::{RetryPolicy, jitter};

/// Whether a call may be repeated if it is unknown whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeatability {
    /// Repeating it has no further effect: reads, and changes that set a value.
    Safe,
    /// Repeating it would leave two messages or two bills, so it is repeated only if it certainly was not carried out.
    IfNotCarriedOut,
}

/// Returns the delay before the next attempt, or `None` if the call has failed for good. `attempt` counts from 1.
/// `remaining` is the rest of the call's time limit.
///
/// The delay is random, between zero and that of the policy. If the platform sends `Retry-After`, the delay is that
/// time plus a random time up to the policy's first delay, so that not all callers return at once. If the delay would
/// exceed the call's time limit, the call fails at once.
pub(super) fn delay(
    policy: &RetryPolicy,
    repeat: Repeatability,
    attempt: u32,
    failure: &Failure,
    remaining: Duration,
) -> Option<Duration> {
    if attempt >= policy.attempts || !may_retry(repeat, failure) {
        return None;
    }
    let delay = match failure.retry_after() {
        Some(retry_after) => retry_after.saturating_add(jitter(policy.backoff.first)),
        None => policy.delay_after(attempt),
    };
    (delay < remaining).then_some(delay)
}

/// Returns whether another attempt is safe and may succeed.
fn may_retry(repeat: Repeatability, failure: &Failure) -> bool {
    match failure {
        Failure::NotSent(_) => true,
        Failure::Interrupted(_) => repeat == Repeatability::Safe,
        Failure::Refused { retryable: false, .. } => false,
        Failure::Refused { status, retry_after, .. } => match *status {
            StatusCode::TOO_MANY_REQUESTS => true,
            // A server that sends `Retry-After` has not started processing.
            StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => true,
            status => status.is_server_error() && repeat == Repeatability::Safe,
        },
        Failure::TimedOut | Failure::TooLarge { .. } | Failure::NoMemory(_) => false,
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
    fn doubles_the_delay_up_to_the_maximum() {
        for (attempt, ceiling) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (39, 1000)] {
            for _ in 0..200 {
                let wait = delay(&POLICY, Repeatability::Safe, attempt, &too_many(None), Duration::MAX).unwrap();
                assert!(wait <= Duration::from_millis(ceiling), "attempt {attempt} waited {wait:?}");
            }
        }
    }

    #[test]
    fn waits_at_least_the_retry_after() {
        let retry_after = Duration::from_secs(7);
        for _ in 0..200 {
            let wait =
                delay(&POLICY, Repeatability::Safe, 1, &too_many(Some(retry_after)), Duration::from_secs(8)).unwrap();
            assert!(wait >= retry_after && wait <= retry_after + POLICY.backoff.first);
        }
    }

    #[test]
    fn returns_no_delay_beyond_the_time_limit() {
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(delay(&POLICY, Repeatability::Safe, 1, &too_many(retry_after), Duration::from_secs(7)), None);
        assert_eq!(
            delay(&POLICY, Repeatability::Safe, 1, &too_many(Some(Duration::MAX)), Duration::from_secs(7)),
            None
        );
    }
}
