//! Tests of the journal: with every engine, and with the SQLite engine on real files that are reopened and damaged, and
//! whose host is killed.

mod calls;
mod chats;
mod claims;
mod crash;
mod files;
mod full;
mod mark;
mod model;
mod operator_changes;
mod recording;
mod retention;
#[path = "../../../../tests/support/small_disk.rs"]
mod small_disk;
mod support;
mod tenant_usage;
