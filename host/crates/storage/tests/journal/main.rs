//! The promises of the journal: by every engine, and with real files that are opened, closed, killed and damaged by the
//! SQLite engine.

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
