//! JSON is read or refused, and one odd item of a list costs no more than itself.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    properties::json_is_read_or_refused(text);
    properties::an_odd_item_costs_only_itself(text);
});
