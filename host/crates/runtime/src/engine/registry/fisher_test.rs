//! How likely it is that two counts of failures differ by chance alone.

/// How likely it is that, of deliveries that fail alike on both sides, at least so many of the failed ones come to lie on
/// the one side: Fisher's exact test, one-sided. Exact however few there are, and as good when there are many.
pub(super) fn by_chance(failed: u64, runs: u64, failed_elsewhere: u64, runs_elsewhere: u64) -> f64 {
    let (all, all_failed) = (runs + runs_elsewhere, failed + failed_elsewhere);
    // Below the mean the answer is about a half or more: not worth its sum.
    if runs == 0 || u128::from(failed) * u128::from(all) <= u128::from(all_failed) * u128::from(runs) {
        return 1.0;
    }
    let all_well = all - all_failed;
    let well = runs - failed;
    let mut term = (ln_choose(all_failed, failed) + ln_choose(all_well, well) - ln_choose(all, runs)).exp();
    let mut sum = term;
    // Above the mean each term is smaller than the one before.
    for more in failed..all_failed.min(runs) {
        let well = (runs - more) as f64;
        let elsewhere_well = (all_well + more + 1 - runs) as f64;
        term *= (all_failed - more) as f64 * well / ((more + 1) as f64 * elsewhere_well);
        sum += term;
        if term < sum * 1e-12 {
            break;
        }
    }
    sum.min(1.0)
}

fn ln_choose(of: u64, taken: u64) -> f64 {
    ln_factorial(of) - ln_factorial(taken) - ln_factorial(of - taken)
}

/// The logarithm of n!, by Stirling's series where that is exact to ten digits.
fn ln_factorial(n: u64) -> f64 {
    if n < 16 {
        return (2..=n).map(|factor| (factor as f64).ln()).sum();
    }
    let n = n as f64;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, wanted: f64) {
        assert!((got - wanted).abs() < wanted * 1e-6, "{got}, not {wanted}");
    }

    /// Counted by hand: 3 of 10 against 0 of 90 is C(10,3)/C(100,3); the others are from R's `fisher.test(…, "greater")`.
    #[test]
    fn is_fishers_exact_test() {
        close(by_chance(3, 10, 0, 90), 120.0 / 161_700.0);
        close(by_chance(5, 5, 0, 45), 1.0 / 2_118_760.0);
        close(by_chance(3, 4, 1, 4), 0.242_857_142_857);
        close(by_chance(8, 8, 2, 7), 0.006_993_006_993);
    }

    #[test]
    fn fewer_failures_are_never_worse() {
        for counts in [(0, 10, 0, 90), (0, 10, 5, 90), (1, 10, 9, 90), (0, 0, 3, 3)] {
            assert!(by_chance(counts.0, counts.1, counts.2, counts.3) >= 0.5, "{counts:?}");
        }
    }

    #[test]
    fn large_counts_are_no_trouble() {
        let unlikely = by_chance(10_500, 100_000, 90_000, 900_000);
        assert!(unlikely > 0.0 && unlikely < 1e-6, "{unlikely}");
        let likely = by_chance(10_050, 100_000, 90_000, 900_000);
        assert!(likely > 0.1, "{likely}");
    }
}
