//! An odd value of an event, or of a platform's answer, hides nothing beside it.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    properties::an_odd_value_hides_nothing(text);
    properties::an_odd_item_costs_only_itself(text);
});
