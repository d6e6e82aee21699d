//! Tests of the delivery guarantees against the real binary, which is killed, stopped and restarted on a platform that
//! misbehaves.
//!
//! `cargo test` kills the host a few times. The following commands do it for hours and print the seed; the same seed
//! repeats the same times between kills:
//!
//! ```text
//! MODHOST_CHAOS_ROUNDS=5000 cargo test --release -p modhost --test chaos -- --exact kills::nothing_is_lost_or_repeated --nocapture
//! MODHOST_CHAOS_SEED=42 cargo test --release -p modhost --test chaos -- --exact kills::nothing_is_lost_or_repeated --nocapture
//! ```
//!
//! The module `cluster` does the same with several hosts on one PostgreSQL database.

mod audit;
mod cluster;
mod faults;
mod faulty_platform;
// This module belongs to the front door tests; this suite uses a part of it.
#[allow(dead_code, unused_imports)]
#[path = "../front_door/harness/mod.rs"]
mod harness;
mod host;
mod keyvalue;
mod kills;
mod machine;
mod old_directory;
mod order;
mod resume;
#[path = "../support/small_disk.rs"]
mod small_disk;
mod stopping;
mod streams;
