//! Tests of the local platform over HTTP, with real requests and deliveries.

mod access;
mod chats;
mod completion;
mod deliveries;
mod event_socket;
mod help;
mod search;
