//! Checks whether a component is compatible with the host's world, from its bytes and before it is compiled.
//!
//! Compiling takes seconds and can't be interrupted, and only after it does Wasmtime report a missing import. This
//! check takes milliseconds, and describes every problem in WIT's terms.
//!
//! ```no_run
//! use modhost_contract::compat;
//!
//! let bytes = std::fs::read("demo_app.wasm")?;
//! let component = compat::examine(&bytes, compat::MAX_SIZE)?;
//! component.check_compatibility()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A component is compatible if the host offers everything it imports, and it exports everything that the host calls.
//! It may import less than the world contains, and it may be built against another patch version if the types it uses
//! are the same.

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

/// The default maximum size of a component in bytes. Components with an interpreter reach 20 MB.
pub const MAX_SIZE: u64 = 64 << 20;

/// Examines a component. `max_size` is in bytes. Function bodies are not validated; the compiler does that.
///
/// # Errors
///
/// Returns the reason if the bytes are not a valid component. Never panics, whatever the bytes are.
pub fn examine(bytes: &[u8], max_size: u64) -> Result<ComponentInfo, Incompatibility> {
    bytes::check_format(bytes, max_size)?;
    ComponentInfo::read(bytes)
}

/// Returns the name of the world that this host serves: `modhost:module/module@0.1.0`.
pub fn world() -> String {
    world::World::get().name()
}

impl ComponentInfo {
    /// Checks whether the component is compatible with the host's world.
    ///
    /// # Errors
    ///
    /// Returns [`Incompatibility::World`] with all problems.
    pub fn check_compatibility(&self) -> Result<(), Incompatibility> {
        let problems = problems::problems(self);
        if problems.is_empty() { Ok(()) } else { Err(Incompatibility::World { built: self.world.clone(), problems }) }
    }
}
