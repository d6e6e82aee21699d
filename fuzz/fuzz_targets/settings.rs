//! A modules.toml is accepted, or refused with errors.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| properties::check_settings(text));
