//! Tests of the key-value store with each engine, on real files that are reopened, filled and damaged, and on a real server.

mod changes;
mod files;
mod hosts;
#[path = "../../../../tests/support/postgres_server.rs"]
#[allow(dead_code, reason = "not every test needs the server's port")]
mod postgres_server;
#[path = "../../../../tests/support/small_disk.rs"]
mod small_disk;
mod support;
