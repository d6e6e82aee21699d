//! A variable of a `.env` file arrives as it is written, or its line is refused.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &str| properties::a_variable_arrives_as_written_or_not_at_all(value));
