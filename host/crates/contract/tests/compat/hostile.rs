//! Damaged and hostile files: whatever they are, they are refused or taken, and nothing panics.

use modhost_contract::compat;

use crate::make::{Contract, HANDLE, wat};

/// Looks at bytes the way the host and `check` do, texts and all.
fn look(bytes: &[u8]) -> bool {
    match compat::examine(bytes, compat::MAX_SIZE) {
        Err(incompatibility) => !incompatibility.to_string().is_empty(),
        Ok(component_info) => component_info
            .check_compatibility()
            .err()
            .is_none_or(|incompatibility| !incompatibility.to_string().is_empty()),
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = Contract::read().build();
    for end in 0..bytes.len() {
        let fits = compat::examine(&bytes[..end], compat::MAX_SIZE)
            .is_ok_and(|component_info| component_info.check_compatibility().is_ok());
        // What is left out at the very end are custom sections, which say who made it.
        assert!(!fits || end > bytes.len() / 2, "the first {end} bytes fit");
        assert!(look(&bytes[..end]));
    }
}

#[test]
fn no_flipped_bit_is_a_panic() {
    for bytes in [Contract::read().build(), Contract::read().world(HANDLE).build()] {
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                assert!(look(&bytes));
            }
        }
    }
}

/// Bytes moved about, so that sections still hold together and indices point elsewhere.
#[test]
fn no_scrambled_component_is_a_panic() {
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
        assert!(look(&bytes));
    }
}

/// Types that double with each level come to nothing written out whole.
#[test]
fn a_type_bomb_goes_off_quietly() {
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
        .expect_err("another type")
        .to_string();
    assert!(text.len() < 4000, "{} bytes of text", text.len());
    assert!(text.contains("…"), "{text}");
}

/// As many imports as a component may have, none of which fits.
#[test]
fn problems_without_end_come_to_an_end() {
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
    let component_info = compat::examine(&wat(&text), compat::MAX_SIZE).expect("a component");
    let text = component_info.check_compatibility().expect_err("other functions").to_string();
    assert!(text.contains("\n- and more\n") && text.len() < 10_000, "{} bytes of text", text.len());
}

#[test]
fn names_without_end_come_to_an_end() {
    let name = "a".repeat(90_000);
    let bytes = Contract::read()
        .with("search.wit", "limit: option<u32>", &format!("{name}: u32"))
        .with("messages.wit", "  show: func", &format!("  {name}: func();\n  show: func"))
        .build();
    let component_info = compat::examine(&bytes, compat::MAX_SIZE).expect("a component");
    let text = component_info.check_compatibility().expect_err("other functions").to_string();
    assert!(text.len() < 10_000, "{} bytes of text", text.len());
    assert!(text.contains("field `limit: option<u32>` is missing"), "{text}");
}

/// A generator of numbers that are always the same (xorshift), so that a failure can be looked into.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
