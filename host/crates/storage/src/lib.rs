//! Storage engines: the journal, the key-value store, the module versions, and events that cannot be read.

#![deny(unsafe_code)]
// They panic if a stream cannot be written and block if nobody reads it: see `output.rs` in `modhost`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod error;
pub mod event_sink;
pub mod journal;
pub mod keyvalue;
pub mod sqlite;
pub mod unreadable;
pub mod versions;
