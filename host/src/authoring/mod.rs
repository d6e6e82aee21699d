//! What authors of modules need besides a compiler, so that they have no other tool to look for: [`bindings`] of the
//! world in their language, and a [`component`] made of what the compiler made.

pub mod bindings;
pub mod component;
mod go;
