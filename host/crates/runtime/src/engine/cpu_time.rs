//! The CPU time of a thread, which unlike the time on a clock doesn't count waiting for a core.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// The CPU time that the thread had used when its slice started.
    static SLICE_START: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Starts a slice of the calling thread: one poll of a guest.
pub(super) fn start_slice() {
    SLICE_START.set(of_this_thread());
}

/// Returns the CPU time that the calling thread has used since its slice started.
pub(super) fn of_this_slice() -> Duration {
    of_this_thread().saturating_sub(SLICE_START.get())
}

/// Returns the CPU time that the calling thread has used.
#[cfg(unix)]
fn of_this_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Returns the time since the first call: elsewhere, waiting for a core counts.
#[cfg(not(unix))]
fn of_this_thread() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    #[cfg(unix)]
    fn counts_computing_and_no_waiting() {
        let (before, started) = (of_this_thread(), Instant::now());
        std::thread::sleep(Duration::from_millis(200));
        let slept = of_this_thread() - before;
        assert!(slept < started.elapsed() / 2, "{slept:?}");
        let before = of_this_thread();
        while of_this_thread() == before {
            std::hint::spin_loop();
        }
    }
}
