//! How events reach the host: listeners, sources with their signature schemes, and health probes.

#![deny(unsafe_code)]
// These macros panic if the stream cannot be written and block if nobody reads it: see `output.rs` in `modhost`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod health;
pub mod listener;
pub mod sources;
