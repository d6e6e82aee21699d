//! Lines that people read of tests that pass, too.

use std::io::Write;

/// Writes a line to standard error. Cargo keeps back what a passing test prints by `eprintln!`; this goes past that.
pub fn notice(text: &str) {
    // Nobody may listen, which is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "\n=== {text}");
}
