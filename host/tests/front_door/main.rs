//! The whole host, through its front door: the real binary, real HTTP, real components, the local platform.

mod answers;
mod offline;
mod browsers;
mod cache;
mod capabilities;
mod starting;
mod commands;
mod compiling;
mod deliveries;
mod dispatch;
mod endings;
mod engine;
mod event_socket;
mod host_discovery;
mod floods;
mod partial_files;
mod client_disconnects;
mod hardening;
mod harness;
mod health;
mod http;
mod keyvalue;
mod listener;
mod logging;
mod metrics;
mod unusual_events;
mod other_platforms;
mod output;
mod reload;
mod routing;
mod sandbox;
#[path = "../support/scripted_server.rs"]
mod server;
// Made for the tests of the journal, too; this suite needs a part of it.
#[allow(dead_code)]
#[path = "../support/small_disk.rs"]
mod small_disk;
mod sources;
mod streams;
mod swaps;
mod testing;
mod tls;
mod trials;
mod versions;
mod wasi;
mod watching;
mod hostile_guests;
