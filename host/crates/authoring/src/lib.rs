//! Everything that authors of modules need besides a compiler: a new module from a [`template`] with its [`sdk`],
//! [`bindings`] of the world for their language, and a [`component`] made from the compiler's output.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod bindings;
pub mod component;
mod embedded;
mod go;
pub mod names;
pub mod sdk;
pub mod template;
