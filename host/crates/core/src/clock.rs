//! The host's time: that by which deliveries are due and leases run out: the wall clock as it stood when the host started, and what
//! has passed since. Whoever sets the machine's clock meanwhile puts no delivery off and brings none forward.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// The time now.
pub fn now() -> SystemTime {
    static STARTED: OnceLock<(SystemTime, Instant)> = OnceLock::new();
    let (wall, monotonic) = STARTED.get_or_init(|| (SystemTime::now(), Instant::now()));
    *wall + monotonic.elapsed()
}
