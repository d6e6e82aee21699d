//! A completion is an answer or an error, wherever its stream is cut into pieces.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = input;
    properties::a_completion_is_an_answer_or_an_error(body, usize::from(size) + 1);
});
