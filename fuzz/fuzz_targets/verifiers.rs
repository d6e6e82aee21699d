//! No scheme accepts a forged request.

#![no_main]

// Each target uses a part of this module.
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
    properties::check_changed_body(input.source, &input.body, &input.other);
    properties::check_changed_header(input.source, input.place, input.byte);
    properties::check_unsigned_request(input.source, &input.headers, &input.body);
});
