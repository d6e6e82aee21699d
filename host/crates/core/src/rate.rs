//! Rate limits: for the events of a tenant or a source, and for the log of a tenant.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The capacity of the bucket, in seconds at the full rate.
const BURST: f64 = 5.0;

/// A token bucket.
pub struct RateLimiter {
    per_second: f64,
    bucket: Mutex<(f64, Instant)>,
}

impl RateLimiter {
    /// Creates a limit of this many events or bytes per second, at least 1. The bucket starts full.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, bucket: Mutex::new((per_second * BURST, Instant::now())) }
    }

    /// Returns the number of tokens added per second.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes a token, or returns the time until one is available.
    pub fn take(&self) -> Result<(), Duration> {
        self.take_many(1)
    }

    /// Takes this many tokens if at least one is available, even if they are fewer: then the next ones pay for them.
    /// Otherwise returns the time until one is available.
    pub fn take_many(&self, count: u32) -> Result<(), Duration> {
        let mut bucket = lock(&self.bucket);
        let (tokens, filled) = &mut *bucket;
        let now = Instant::now();
        let added = now.duration_since(*filled).as_secs_f64() * self.per_second;
        *tokens = (*tokens + added).min(self.per_second * BURST);
        *filled = now;
        if *tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *tokens) / self.per_second));
        }
        *tokens -= f64::from(count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_the_bucket_is_paid_later() {
        let rate = RateLimiter::new(10);
        rate.take_many(1_000_000).unwrap();
        let wait = rate.take().unwrap_err();
        assert!(wait > Duration::from_secs(90_000), "{wait:?}");
    }
}
