//! Tests of the key-value store with the SQLite engine, on real files that are reopened, filled and damaged.

mod changes;
mod files;
#[path = "../../../../tests/support/small_disk.rs"]
mod small_disk;
mod support;
