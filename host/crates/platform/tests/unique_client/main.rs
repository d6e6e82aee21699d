//! The client of Unique's REST API, against a server that records what it is sent and answers from a script.

mod calls;
mod client;
mod failures;
mod malformed_answers;
mod requests;
mod retries;
mod sdk;
#[path = "../../../../tests/support/scripted_server.rs"]
mod server;
