//! Runs modules: capabilities with the call log, the engine, and the dispatch of deliveries.

#![deny(unsafe_code)]
// They panic if a stream cannot be written and block if nobody reads it: see `output.rs` in `modhost`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod call_log;
pub mod capabilities;
pub mod dispatch;
pub mod engine;
