//! Tests the client of OpenAI-compatible endpoints against a server that records requests and sends scripted answers.
//! The tests of Unique's client cover the shared transport (retries, limits of answers).

mod client;
mod recordings;
#[path = "../../../../tests/support/scripted_server.rs"]
mod server;
mod streams;
mod whole;
