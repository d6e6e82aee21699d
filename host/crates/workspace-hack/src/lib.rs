//! Nothing: the dependencies of this crate are its content.
//!
//! Cargo unifies the features of a dependency over the packages of one command, so that `cargo run`, `cargo test` and
//! `cargo test -p modhost-storage` would each build Tokio, Serde and others anew. All crates of the host depend on this one,
//! which asks for the union of the features. `.ci/check-features` fails if a command would build something differently.
