//! How fast events may come: those of a tenant, those of a source.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How many seconds' worth of events may come at once after a quiet time.
const BURST: f64 = 5.0;

/// A bucket of turns that fills at a steady rate.
pub struct Rate {
    per_second: f64,
    bucket: Mutex<(f64, Instant)>,
}

impl Rate {
    /// A rate of this many events per second, with a burst on top.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, bucket: Mutex::new((per_second * BURST, Instant::now())) }
    }

    /// How many turns come a second.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes a turn, or says when there will be one.
    pub fn take(&self) -> Result<(), Duration> {
        let mut bucket = lock(&self.bucket);
        let (turns, filled) = &mut *bucket;
        let now = Instant::now();
        let more = now.duration_since(*filled).as_secs_f64() * self.per_second;
        *turns = (*turns + more).min(self.per_second * BURST);
        *filled = now;
        if *turns < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *turns) / self.per_second));
        }
        *turns -= 1.0;
        Ok(())
    }
}
