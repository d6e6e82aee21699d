//! A value in a `.env` file is read exactly as it is written, or its line is refused.

#![no_main]

// Each target uses a part of this module.
#[allow(dead_code)]
#[path = "../../host/tests/fuzz/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &str| properties::check_dotenv_value(value));
