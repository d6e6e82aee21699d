//! A body results in a small event or in none.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for number in 0..properties::SOURCES {
        properties::check_event(number, body);
    }
});
