//! Runs modules: the dispatch of deliveries, the engine, and the capabilities with their call log.

#![deny(unsafe_code)]
// These macros panic if the stream can't be written to, and block if nobody reads it: see `output.rs` in `modhost`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod call_log;
pub mod capabilities;
pub mod dispatch;
pub mod engine;
