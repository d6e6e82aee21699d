//! Tests of the record of versions with each engine, and of several hosts that share one.

mod hosts;
#[path = "../../../../tests/support/postgres_server.rs"]
#[allow(dead_code, reason = "not every test needs the server's port")]
mod postgres_server;
mod record;
mod support;
