//! Medians and units.

use std::time::Duration;

/// Returns the median; NaN without figures.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Times for tables.
pub trait Milliseconds {
    /// Returns the time in milliseconds.
    fn milliseconds(&self) -> f64;
}

impl Milliseconds for Duration {
    fn milliseconds(&self) -> f64 {
        self.as_secs_f64() * 1e3
    }
}
