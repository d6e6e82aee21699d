//! Damaged and hostile files: each is accepted or rejected, without a panic.

use modhost_contract::compat;

use crate::make::{Contract, HANDLE, wat};

/// Examines bytes as the host and `check` do, and formats the message.
fn examine(bytes: &[u8]) -> bool {
    match compat::examine(bytes, compat::MAX_SIZE) {
        Err(incompatibility) => !incompatibility.to_string().is_empty(),
        Ok(component_info) => component_info
            .check_compatibility()
            .err()
            .is_none_or(|incompatibility| !incompatibility.to_string().is_empty()),
    }
}

#[test]
fn rejects_truncated_components() {
    let bytes = Contract::read().build();
    for end in 0..bytes.len() {
        let fits = compat::examine(&bytes[..end], compat::MAX_SIZE)
            .is_ok_and(|component_info| component_info.check_compatibility().is_ok());
        // The end of the file contains only custom sections with the producers.
        assert!(!fits || end > bytes.len() / 2, "the first {end} bytes are compatible");
        assert!(examine(&bytes[..end]));
    }
}

#[test]
fn survives_flipped_bits() {
    for bytes in [Contract::read().build(), Contract::read().world(HANDLE).build()] {
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                assert!(examine(&bytes));
            }
        }
    }
}

/// Copies bytes around, so that sections stay well-formed and indices become wrong.
#[test]
fn survives_scrambled_bytes() {
    let whole = Contract::read().build();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..4000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(6) {
            let (to, from) = (8 + random.below(bytes.len() - 8), random.below(bytes.len()));
            bytes[to] = match random.below(3) {
                0 => bytes[from],
                1 => bytes[to].wrapping_add(1),
                _ => random.below(24) as u8,
            };
        }
        assert!(examine(&bytes));
    }
}

/// Types that double with each level are never printed in full.
#[test]
fn truncates_exponentially_large_types() {
    let mut types = String::from("type t0 = tuple<u8, u8>;");
    for n in 1..16 {
        types.push_str(&format!("type t{n} = tuple<t{}, t{}>;", n - 1, n - 1));
    }
    let bytes = Contract::read()
        .with("search.wit", "  /// Returns the hits", &format!("  {types}\n  /// Returns the hits"))
        .with("search.wit", "search: func(query: query)", "search: func(query: t15)")
        .build();
    let text = compat::examine(&bytes, compat::MAX_SIZE)
        .and_then(|component_info| component_info.check_compatibility())
        .expect_err("incompatible type")
        .to_string();
    assert!(text.len() < 4000, "{} bytes of text", text.len());
    assert!(text.contains("…"), "{text}");
}

/// The maximum number of imports, all incompatible.
#[test]
fn limits_the_number_of_problems() {
    let mut text = String::from(
        "(component (type $search (instance (export \"search\" (func (param \"query\" u8))))) (type $run (func))",
    );
    for n in 0..900 {
        text.push_str(&format!("(import \"modhost:module/search@0.1.{n}\" (instance (type $search)))"));
    }
    for n in 0..50_000 {
        text.push_str(&format!("(import \"run{n}\" (func (type $run)))"));
    }
    text.push(')');
    let component_info = compat::examine(&wat(&text), compat::MAX_SIZE).expect("a valid component");
    let text = component_info.check_compatibility().expect_err("incompatible functions").to_string();
    assert!(text.contains("\n- and more\n") && text.len() < 10_000, "{} bytes of text", text.len());
}

#[test]
fn limits_the_length_of_names() {
    let name = "a".repeat(90_000);
    let bytes = Contract::read()
        .with("search.wit", "limit: option<u32>", &format!("{name}: u32"))
        .with("messages.wit", "  show: func", &format!("  {name}: func();\n  show: func"))
        .build();
    let component_info = compat::examine(&bytes, compat::MAX_SIZE).expect("a valid component");
    let text = component_info.check_compatibility().expect_err("incompatible functions").to_string();
    assert!(text.len() < 10_000, "{} bytes of text", text.len());
    assert!(text.contains("field `limit: option<u32>` is missing"), "{text}");
}

/// A deterministic random number generator (xorshift), so that failures can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
