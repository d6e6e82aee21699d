//! Tests of modules: an event and scripted answers in a file, the module run on the real engine with the real
//! capabilities, and what it did held against what was expected.
//!
//! Nothing leaves the process: the platform is a [`script`], the key-value store a file that is gone afterwards, the
//! clock and chance are the test's. Limits, replies, steps and errors are those of production.

mod answers;
mod event;
mod expect;
mod file;
mod http;
mod matcher;
mod observed;
mod run;
mod script;
mod store;
mod update_expected;
pub mod written;

pub use answers::error_word;
pub use expect::{Difference, Expected};
pub use file::Test;
pub use observed::{Call as SeenCall, Observed, SeenStep};
pub use run::{Outcome, TestRun};
pub use update_expected::section;

/// Where a test's clock starts unless its file says otherwise: a day on which nothing ends and nothing begins.
pub const DEFAULT_TIME: &str = "2026-01-15T09:30:00Z";
