//! The `modhost` command line: its commands, and `modhost test`.

#![forbid(unsafe_code)]
// They panic if a stream cannot be written and block if nobody reads it: see `commands/output.rs`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod commands;
pub mod testing;
