//! Components that fit and components that don't, and what a person reads of them.

mod hostile;
mod incompatibilities;
mod make;
mod other_worlds;
mod whole;

use modhost_contract::compat;

/// Why a file isn't taken as a module, as a person reads it; fails if it is.
fn incompatibility(bytes: &[u8]) -> String {
    match compat::examine(bytes, compat::MAX_SIZE).and_then(|component_info| component_info.check_compatibility()) {
        Ok(()) => panic!("it fits"),
        Err(incompatibility) => incompatibility.to_string(),
    }
}
