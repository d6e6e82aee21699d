//! Tests the client of Unique's REST API against a server that records requests and sends scripted answers.

mod calls;
mod client;
mod failures;
mod malformed_answers;
mod requests;
mod retries;
mod sdk;
#[path = "../../../../tests/support/scripted_server.rs"]
mod server;
