//! What authors of modules need besides a compiler, so that they have no other tool to look for: a module to begin with, made
//! from a [`template`] with its [`sdk`]; [`bindings`] of the world in their language; and a [`component`] made of what the
//! compiler made.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod bindings;
pub mod component;
mod embedded;
mod go;
pub mod names;
pub mod sdk;
pub mod template;
