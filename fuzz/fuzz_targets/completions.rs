//! A completion is an answer or an error, whatever the chunking of its stream.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = input;
    properties::check_completion(body, usize::from(size) + 1);
});
