//! The client of OpenAI-compatible endpoints, against a server that records what it is sent and answers from a script.
//! What it shares with Unique's (what is tried again and when, limits of answers) is tested there.

mod client;
mod recordings;
#[path = "../../../../tests/support/scripted_server.rs"]
mod server;
mod streams;
mod whole;
