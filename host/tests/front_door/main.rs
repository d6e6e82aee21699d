//! Tests of the whole host through its front door: the real binary, real HTTP, real components, the local platform.

mod answers;
mod browsers;
mod cache;
mod capabilities;
mod client_disconnects;
mod commands;
mod compiling;
mod confinement;
mod deliveries;
mod dispatch;
mod endings;
mod engine;
mod event_socket;
mod floods;
mod hardening;
mod harness;
mod health;
mod host_discovery;
mod hosts;
mod http;
mod includes;
mod keyvalue;
mod listener;
mod logging;
mod metrics;
mod neighbors;
mod offline;
mod other_platforms;
mod output;
mod partial_files;
#[path = "../support/postgres_server.rs"]
#[allow(dead_code, reason = "not every test needs the server's port")]
mod postgres_server;
mod reload;
mod routing;
mod sandbox;
// These modules are shared with other suites; this one uses a part of them.
#[allow(dead_code)]
#[path = "../support/cuttable_proxy.rs"]
mod cuttable_proxy;
#[path = "../support/scripted_server.rs"]
mod server;
mod shared_versions;
mod starting;
mod unusual_events;
// This module is shared with the tests of the journal; this suite uses a part of it.
mod hostile_guests;
#[allow(dead_code)]
#[path = "../support/small_disk.rs"]
mod small_disk;
mod sources;
mod streams;
mod swaps;
mod tenants;
mod testing;
mod tls;
mod trials;
mod versions;
mod wasi;
mod watching;
