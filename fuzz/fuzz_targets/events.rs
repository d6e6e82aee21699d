//! The chunking of a server-sent event stream makes no difference.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = input;
    properties::check_event_chunking(stream, usize::from(size) + 1);
});
