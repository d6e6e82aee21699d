//! Fisher's exact test for two failure counts.

/// Returns the one-sided p-value of Fisher's exact test: the probability that at least `failed` of all failures fall on
/// the side with `runs` deliveries, if both sides fail equally often. It is valid for small and large counts.
pub(super) fn p_value(failed: u64, runs: u64, failed_elsewhere: u64, runs_elsewhere: u64) -> f64 {
    let (all, all_failed) = (runs + runs_elsewhere, failed + failed_elsewhere);
    // At or below the mean the p-value is about 0.5 or more, so it isn't computed.
    if runs == 0 || u128::from(failed) * u128::from(all) <= u128::from(all_failed) * u128::from(runs) {
        return 1.0;
    }
    let all_succeeded = all - all_failed;
    let succeeded = runs - failed;
    let mut term = (ln_choose(all_failed, failed) + ln_choose(all_succeeded, succeeded) - ln_choose(all, runs)).exp();
    let mut sum = term;
    // Above the mean the terms decrease.
    for count in failed..all_failed.min(runs) {
        let succeeded = (runs - count) as f64;
        let succeeded_elsewhere = (all_succeeded + count + 1 - runs) as f64;
        term *= (all_failed - count) as f64 * succeeded / ((count + 1) as f64 * succeeded_elsewhere);
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

/// Returns ln(n!). From n = 16 on it uses Stirling's series, which is exact to ten digits there.
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
        assert!((got - wanted).abs() < wanted * 1e-6, "got {got}, expected {wanted}");
    }

    /// The first value is computed by hand: 3 of 10 against 0 of 90 is C(10,3)/C(100,3). The others are from R's
    /// `fisher.test(…, "greater")`.
    #[test]
    fn matches_reference_values() {
        close(p_value(3, 10, 0, 90), 120.0 / 161_700.0);
        close(p_value(5, 5, 0, 45), 1.0 / 2_118_760.0);
        close(p_value(3, 4, 1, 4), 0.242_857_142_857);
        close(p_value(8, 8, 2, 7), 0.006_993_006_993);
    }

    #[test]
    fn fewer_failures_are_not_significant() {
        for counts in [(0, 10, 0, 90), (0, 10, 5, 90), (1, 10, 9, 90), (0, 0, 3, 3)] {
            assert!(p_value(counts.0, counts.1, counts.2, counts.3) >= 0.5, "{counts:?}");
        }
    }

    #[test]
    fn handles_large_counts() {
        let unlikely = p_value(10_500, 100_000, 90_000, 900_000);
        assert!(unlikely > 0.0 && unlikely < 1e-6, "{unlikely}");
        let likely = p_value(10_050, 100_000, 90_000, 900_000);
        assert!(likely > 0.1, "{likely}");
    }
}
