//! The commands of the `modhost` command line, and the test runner of `modhost test`.

#![forbid(unsafe_code)]
// These macros panic if the stream cannot be written, and block if nobody reads it: see `commands/output.rs`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod commands;
pub mod testing;
