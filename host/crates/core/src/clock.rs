//! The host's clock, and a clock for tests.
//!
//! The host's clock is the wall clock at the start of the process plus the time elapsed on the monotonic clock. Setting
//! the machine's clock neither delays deliveries nor makes them run early.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::sync::lock;

/// A source of the current time and of sleeps.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Returns the current time.
    fn now(&self) -> SystemTime;

    /// Returns the time since some fixed moment, by a clock that nobody can set and that also counts while the machine is
    /// suspended. Leases count by it.
    fn since_boot(&self) -> Duration;

    /// Returns once this much time has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Runs a future with a time limit by a clock; returns `None` if the limit is reached first.
pub async fn timeout<T>(clock: &dyn Clock, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep(limit) => None,
    }
}

/// The host's clock, which cannot be set while the process runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        static STARTED: OnceLock<(SystemTime, Instant)> = OnceLock::new();
        let (wall, monotonic) = STARTED.get_or_init(|| (SystemTime::now(), Instant::now()));
        *wall + monotonic.elapsed()
    }

    fn since_boot(&self) -> Duration {
        // On other systems, the closest there is.
        #[cfg(target_os = "linux")]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(CLOCK);
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
        Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// A clock that advances only when a test moves it.
#[derive(Debug)]
pub struct ManualClock(Mutex<ManualTime>);

#[derive(Debug)]
struct ManualTime {
    now: SystemTime,
    /// The time that has passed: all moves forward.
    passed: Duration,
    /// The pending sleeps, with their deadlines.
    sleepers: Vec<(SystemTime, oneshot::Sender<()>)>,
}

impl ManualClock {
    /// Creates a clock with this time.
    pub fn new(now: SystemTime) -> Self {
        Self(Mutex::new(ManualTime { now, passed: Duration::ZERO, sleepers: Vec::new() }))
    }

    /// Sets the time, forward or back, and ends the sleeps whose deadline has passed.
    pub fn set(&self, now: SystemTime) {
        let mut time = self.lock();
        let passed = now.duration_since(time.now).unwrap_or_default();
        time.passed += passed;
        time.now = now;
        let (expired, pending) = std::mem::take(&mut time.sleepers).into_iter().partition(|(end, _)| *end <= now);
        time.sleepers = pending;
        drop(time);
        let expired: Vec<(SystemTime, oneshot::Sender<()>)> = expired;
        for (_, sleeper) in expired {
            // The sleeping future may have been dropped.
            let _ = sleeper.send(());
        }
    }

    /// Moves the time forward, and ends the sleeps whose deadline has passed.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }

    /// Returns the earliest deadline of the pending sleeps that have not been dropped.
    pub fn next_wake(&self) -> Option<SystemTime> {
        let mut time = self.lock();
        time.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
        time.sleepers.iter().map(|(end, _)| *end).min()
    }

    fn lock(&self) -> MutexGuard<'_, ManualTime> {
        lock(&self.0)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.lock().now
    }

    fn since_boot(&self) -> Duration {
        self.lock().passed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut time = self.lock();
        let Some(end) = time.now.checked_add(duration).filter(|end| *end > time.now) else {
            return if duration.is_zero() {
                futures::future::ready(()).boxed()
            } else {
                futures::future::pending().boxed()
            };
        };
        let (sleeper, slept) = oneshot::channel();
        time.sleepers.push((end, sleeper));
        // The sender is dropped only with the clock, after which no time passes.
        async move {
            if slept.await.is_err() {
                futures::future::pending::<()>().await;
            }
        }
        .boxed()
    }
}

/// Returns the current time of the host's clock.
pub fn now() -> SystemTime {
    SystemClock.now()
}

/// Converts a time to milliseconds since 1970, rounded down; an earlier time becomes 0.
pub fn to_millis(time: SystemTime) -> i64 {
    whole_millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Converts a time to milliseconds since 1970, rounded up, so that nothing due at that time runs early.
pub fn to_millis_rounded_up(time: SystemTime) -> i64 {
    to_millis(time.checked_add(Duration::from_nanos(999_999)).unwrap_or(time))
}

/// Converts milliseconds since 1970 to a time; the inverse of [`to_millis`].
pub fn from_millis(millis: i64) -> SystemTime {
    let since_1970 = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(since_1970).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Converts a duration to milliseconds, rounded down.
pub fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_passed_time_only_forward() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        clock.advance(Duration::from_secs(5));
        clock.set(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.since_boot(), Duration::from_secs(5));
        let before = SystemClock.since_boot();
        assert!(before > Duration::ZERO && SystemClock.since_boot() >= before);
    }

    #[test]
    fn rounds_times_to_milliseconds_and_due_times_up() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_500_000);
        assert_eq!((to_millis(time), to_millis_rounded_up(time)), (1, 2));
        assert_eq!(from_millis(to_millis(time)), SystemTime::UNIX_EPOCH + Duration::from_millis(1));
        assert_eq!(to_millis(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(from_millis(-1), SystemTime::UNIX_EPOCH);
    }
}
