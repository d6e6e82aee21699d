//! Tests the client of NexusGPT's public API against a server that records requests and sends scripted answers. The
//! tests of Unique's client cover the shared transport (retries, limits of answers).

mod client;
mod failures;
mod requests;
#[path = "../../../../tests/support/scripted_server.rs"]
mod server;
