//! JSON is read as others read it, and one odd value hides nothing beside it.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    properties::json_is_read_as_others_read_it(text);
    properties::an_odd_value_hides_nothing(text);
});
