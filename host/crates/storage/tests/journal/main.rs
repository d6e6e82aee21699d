//! The promises of the journal, held by the SQLite engine: real files, opened, closed, killed and damaged.

mod calls;
mod chats;
mod crash;
mod dispatch;
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
