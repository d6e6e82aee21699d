//! Compatible and incompatible components, and the messages about them.

mod compatible;
mod hostile;
mod incompatibilities;
mod make;
mod other_worlds;

use modhost_contract::compat;

/// Returns the message for an incompatible file; panics if the file is compatible.
fn incompatibility(bytes: &[u8]) -> String {
    match compat::examine(bytes, compat::MAX_SIZE).and_then(|component_info| component_info.check_compatibility()) {
        Ok(()) => panic!("the component is compatible"),
        Err(incompatibility) => incompatibility.to_string(),
    }
}
