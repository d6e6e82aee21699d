//! The rule by which tenants share a resource of limited size.

/// Returns whether a tenant may use `own` of a resource of which all tenants together may use `limit`, and would then use
/// `total`.
///
/// A tenant may use three times what is left free (dynamic thresholds, as in the shared buffers of network switches:
/// Choudhury and Hahne, 1998). So idle capacity is lent: a single tenant gets three quarters, two get three sevenths each.
/// Yet some is always left for the next one, and nothing has to be known about the number of tenants.
pub fn allows(limit: u64, total: u64, own: u64) -> bool {
    limit.checked_sub(total).is_some_and(|free| own <= free.saturating_mul(3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lends_what_is_idle() {
        assert!(allows(100, 75, 75));
        assert!(!allows(100, 76, 76));
        assert!(allows(100, 87, 37), "while the other uses 50");
        assert!(!allows(100, 88, 38));
        assert!(!allows(100, 101, 0));
        assert!(allows(u64::MAX, 1, 1));
    }

    proptest! {
        /// Whatever the others use, a tenant that comes later finds some left.
        #[test]
        fn leaves_some_for_the_next_tenant(requests in proptest::collection::vec((0..10_usize, 1..5_000_u64), 0..400)) {
            const LIMIT: u64 = 1_000_000;
            let mut used = [0_u64; 10];
            for (tenant, bytes) in requests {
                let (total, own) = (used.iter().sum::<u64>() + bytes, used[tenant] + bytes);
                if allows(LIMIT, total, own) {
                    used[tenant] = own;
                }
            }
            let total = used.iter().sum::<u64>();
            prop_assert!(total < LIMIT);
            prop_assert!(allows(LIMIT, total + 1, 1) || LIMIT - total == 1, "{total} of {LIMIT} are in use");
        }
    }
}
