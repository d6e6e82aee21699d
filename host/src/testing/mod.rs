//! Tests of modules: a file contains an event, scripted answers and expectations. The module runs on the real engine with the real
//! capabilities, and its result is compared with the expectations.
//!
//! Nothing leaves the process: the platform is a [`scripted_platform`], the key-value store is temporary, and the test sets the
//! clock and the seed of random numbers. Limits, replies, steps and errors are those of production.

mod answers;
mod event;
mod expect;
mod file;
mod http;
mod matcher;
mod observed;
mod run;
mod scripted_platform;
mod store;
pub mod toml_writer;
mod update_expected;

pub use answers::error_name;
pub use expect::{Difference, Expected};
pub use file::Test;
pub use observed::{Observed, ObservedCall, ObservedStep};
pub use run::{TestOutcome, TestRun};
pub use update_expected::expect_section;

/// The default start time of a test's clock. It is not close to a change of the day, month or year.
pub const DEFAULT_TIME: &str = "2026-01-15T09:30:00Z";
