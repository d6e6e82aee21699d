//! The local platform through its front door: real HTTP in, real deliveries out.

mod access;
mod chats;
mod completion;
mod deliveries;
mod event_socket;
mod help;
mod search;
