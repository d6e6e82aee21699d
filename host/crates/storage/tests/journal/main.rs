//! Tests of the journal: with every engine, with the SQLite engine on real files that are reopened and damaged, and whose
//! host is killed, and with the PostgreSQL engine on a real server.

mod calls;
mod chats;
mod claims;
mod crash;
mod files;
mod full;
mod hosts;
mod mark;
mod model;
mod operator_changes;
mod postgres;
#[path = "../../../../tests/support/postgres_server.rs"]
mod postgres_server;
mod recording;
mod retention;
#[path = "../../../../tests/support/small_disk.rs"]
mod small_disk;
mod support;
mod tenant_usage;
