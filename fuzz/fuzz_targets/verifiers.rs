//! Nothing forged is taken by any scheme.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    source: usize,
    body: Vec<u8>,
    other: Vec<u8>,
    headers: Vec<Vec<u8>>,
    place: usize,
    byte: u8,
}

fuzz_target!(|input: Input| {
    properties::a_changed_body_is_refused(input.source, &input.body, &input.other);
    properties::a_changed_header_is_refused(input.source, input.place, input.byte);
    properties::what_nobody_signed_is_refused(input.source, &input.headers, &input.body);
});
