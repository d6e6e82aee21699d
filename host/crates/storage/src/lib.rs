//! Storage engines: the journal, the key-value store, the module versions, and unreadable requests.

#![deny(unsafe_code)]
// The print macros panic if the stream cannot be written, and block if nobody reads it; see `output.rs` in `modhost`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod cluster;
pub mod error;
pub mod event_sink;
pub mod journal;
pub mod keyvalue;
pub mod migrate;
pub mod postgres;
pub mod shards;
pub mod sqlite;
pub mod unreadable;
pub mod versions;
