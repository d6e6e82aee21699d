//! The host of modules: WebAssembly components that answer events.

// But for mapping compiled components, which `engine/cache.rs` proves safe.
#![deny(unsafe_code)]

mod address;
pub mod authoring;
pub mod browser_guard;
pub mod capabilities;
mod clock;
pub mod commands;
pub mod config;
pub mod console;
pub mod contract;
pub mod dispatch;
pub mod engine;
pub mod event;
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
pub mod plan;
pub mod platform;
mod rate;
pub mod sources;
mod sqlite;
mod sse;
pub mod telemetry;
pub mod testing;
pub mod versions;
