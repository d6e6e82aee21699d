//! A body makes a small event, or none.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for number in 0..properties::SOURCES {
        properties::a_body_is_an_event_or_none(number, body);
    }
});
