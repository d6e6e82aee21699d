//! Messages that are visible even if the test passes.

use std::io::Write;

/// Writes a line to standard error, past Cargo's capture of the output of passing tests (`eprintln!`).
pub fn notice(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "\n=== {text}");
}
