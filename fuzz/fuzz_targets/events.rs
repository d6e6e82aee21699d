//! Server-sent events are read alike in any pieces.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = input;
    properties::events_are_read_alike_in_any_pieces(stream, usize::from(size) + 1);
});
