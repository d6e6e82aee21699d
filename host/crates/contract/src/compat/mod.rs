//! Does a component fit the world, read from its bytes before anything is compiled.
//!
//! Compiling takes seconds, can't be broken off, and Wasmtime names a missing import only after it. So what is in a
//! file, and whether the host offers what it asks for, is found out first: in milliseconds, and said in WIT's words.
//!
//! ```no_run
//! use modhost::engine::compat;
//!
//! let bytes = std::fs::read("demo_app.wasm")?;
//! let component = compat::examine(&bytes, compat::MAX_SIZE)?;
//! component.check_compatibility()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A component fits if its imports are among what the host offers and its exports have what the host calls. One that
//! imports less than the world has fits; so does one built against another patch version, as long as what it uses is
//! the same.

mod bytes;
mod compare;
mod component_info;
mod incompatibility;
mod names;
mod problems;
mod wit_printer;
mod world;

pub use component_info::{ComponentInfo, Export, Import, Kind, Producers, Provider};
pub use incompatibility::{Incompatibility, Lookalike, Problem};

/// The size a component may have unless the host is told another, in bytes. Interpreters come to 20 MB.
pub const MAX_SIZE: u64 = 64 << 20;

/// Reads what a component is made of. `max_size` is in bytes.
///
/// Bodies of functions are left to the compiler. Whatever the bytes are, this ends: with an [`ComponentInfo`], or with the
/// reason why they are no component.
pub fn examine(bytes: &[u8], max_size: u64) -> Result<ComponentInfo, Incompatibility> {
    bytes::refuse_others(bytes, max_size)?;
    ComponentInfo::read(bytes)
}

/// The world this host serves: `modhost:module/module@0.1.0`.
pub fn world() -> String {
    world::World::get().name()
}

impl ComponentInfo {
    /// Whether it fits the host's world; all that doesn't, if not.
    pub fn check_compatibility(&self) -> Result<(), Incompatibility> {
        let problems = problems::problems(self);
        if problems.is_empty() { Ok(()) } else { Err(Incompatibility::World { built: self.world.clone(), problems }) }
    }
}
