//! A modules.toml is read, or its mistakes are told.

#![no_main]

// Each target needs a part of it.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| properties::settings_are_read_or_refused(text));
