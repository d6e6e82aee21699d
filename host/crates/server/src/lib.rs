//! Builds a host from its settings: start and reload, the admin API, the log.

#![deny(unsafe_code)]
// These macros panic if the stream can't be written, and block if nobody reads it. See `output.rs` in `modhost`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod admin_api;
pub mod host;
pub mod resolved_config;
pub mod telemetry;
