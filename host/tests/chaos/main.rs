//! What the host promises about deliveries, held against the real binary: killed, stopped and started again, on a
//! platform that misbehaves.
//!
//! `cargo test` kills a few times. This does it for hours, and prints the seed it took; with the same seed it kills
//! after the same times:
//!
//! ```text
//! MODHOST_CHAOS_ROUNDS=5000 cargo test --release -p modhost --test chaos nothing_is_lost -- --nocapture
//! MODHOST_CHAOS_SEED=42 cargo test --release -p modhost --test chaos nothing_is_lost -- --nocapture
//! ```

mod audit;
mod far_side;
mod faults;
// Made for the tests of the front door; this suite needs a part of it.
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
