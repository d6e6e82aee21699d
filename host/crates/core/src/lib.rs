//! Types and tools that every crate of the host shares: events, JSON, limits, server-sent events, files, metrics.

#![deny(unsafe_code)]
// These macros panic if the stream cannot be written, and block if nobody reads it: see `output.rs` in `modhost`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod address;
pub mod backoff;
pub mod browser_guard;
pub mod clock;
pub mod event;
pub mod fair_share;
pub mod files;
pub mod import;
pub mod json;
pub mod limits;
pub mod log_throttle;
pub mod memory_budget;
pub mod metrics;
pub mod origin;
pub mod platform_urls;
pub mod plural;
pub mod rate;
pub mod retry_after;
pub mod sanitize;
pub mod secret;
pub mod source_location;
pub mod sse;
pub mod suggest;
pub mod sync;
pub mod system_memory;
pub mod tenant_meter;
pub mod tenant_permits;
pub mod text;
