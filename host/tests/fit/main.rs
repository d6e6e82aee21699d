//! Components that fit and components that don't, and what a person reads of them.

mod check;
mod hostile;
mod make;
mod misfits;
mod other_worlds;
mod whole;

use modhost::engine::fit;

/// Why a file isn't taken as a module, as a person reads it; fails if it is.
fn misfit(bytes: &[u8]) -> String {
    match fit::examine(bytes, fit::MAX_SIZE).and_then(|anatomy| anatomy.fit()) {
        Ok(()) => panic!("it fits"),
        Err(misfit) => misfit.to_string(),
    }
}
