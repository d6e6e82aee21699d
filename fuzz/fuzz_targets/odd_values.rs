//! An unusual value in an event, or in a response of the platform, doesn't affect other values.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    properties::check_unusual_value(text);
    properties::check_unusual_item(text);
});
