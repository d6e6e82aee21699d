//! The host of modules: WebAssembly components that answer events.

// But for mapping compiled components, which `engine/cache.rs` proves safe.
#![deny(unsafe_code)]
// They panic where a stream can't be written, and wait where it isn't read: see `commands/output.rs`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod address;
pub mod admin_api;
pub mod authoring;
pub mod browser_guard;
pub mod capabilities;
mod clock;
pub mod commands;
pub mod config;
pub mod contract;
pub mod dispatch;
pub mod engine;
pub mod event;
mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod host;
pub mod journal;
mod json;
pub mod keyvalue;
pub mod limits;
pub mod listener;
pub mod local;
pub mod origin;
pub mod platform;
pub mod platform_urls;
mod plural;
mod rate;
pub mod resolved_config;
pub mod retry_after;
mod sanitize;
pub mod sources;
mod sqlite;
mod sse;
pub mod telemetry;
pub mod testing;
pub mod unreadable;
pub mod versions;
