//! Plural forms in messages.

/// Formats a count with its noun: "1 delivery", "2 deliveries".
pub fn counted(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_the_singular_for_one_only() {
        assert_eq!(counted(0_usize, "delivery", "deliveries"), "0 deliveries");
        assert_eq!(counted(1_u32, "delivery", "deliveries"), "1 delivery");
        assert_eq!(counted(2_u64, "delivery", "deliveries"), "2 deliveries");
    }
}
