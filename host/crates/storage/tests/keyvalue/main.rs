//! The promises of the key-value store, held by the SQLite engine: real files, opened, closed, filled and damaged.

mod changes;
mod files;
#[path = "../../../../tests/support/small_disk.rs"]
mod small_disk;
mod support;
