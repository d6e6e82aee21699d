//! Medians and percentiles, which are robust against outliers on a shared machine.

use std::time::Duration;

/// Returns the median; NaN without figures.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

/// Returns the percentile of these times, in microseconds.
pub fn percentile(times: &mut [Duration], per_cent: usize) -> f64 {
    if times.is_empty() {
        return f64::NAN;
    }
    let place = (times.len() * per_cent).div_ceil(100).clamp(1, times.len()) - 1;
    microseconds(*times.select_nth_unstable(place).1)
}

/// Returns a time in microseconds.
pub fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
