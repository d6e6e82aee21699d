//! The measures on Linux, and their order.

mod files;
mod own_user;
mod sys;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod system_calls;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod system_calls {
    const UNKNOWN: &str = "modhost has no filters for this processor";

    pub fn allow_compiling() -> Result<(), String> {
        Err(UNKNOWN.into())
    }

    pub fn deny_unneeded() -> Result<(), String> {
        Err(UNKNOWN.into())
    }
}

use std::io;
use std::path::Path;

use super::InForce;

pub(super) use sys::{close_inherited_files, set_time_slice};

/// Restricts the compile process.
pub(super) fn confine_compiler() -> InForce {
    let mut steps = Steps::default();
    // First of all: the other steps take away the system calls for it.
    steps.in_force.uid = steps.take("a user of its own", own_user::change_user()).flatten();
    steps.take("no capabilities", own_user::drop_capabilities().map_err(describe));
    steps.no_new_privs();
    steps.in_force.landlock = steps.take("Landlock", files::deny_everything());
    steps.in_force.seccomp = steps.take("seccomp", system_calls::allow_compiling()).is_some();
    steps.in_force
}

/// Restricts the host.
pub(super) fn confine_host(writable: &[&Path], program: &Path) -> InForce {
    let mut steps = Steps::default();
    steps.no_new_privs();
    steps.in_force.landlock = steps.take("Landlock", files::allow_writes_to(writable, program));
    steps.in_force.seccomp = steps.take("seccomp", system_calls::deny_unneeded()).is_some();
    steps.in_force
}

/// See [`super::hide_from_other_processes`].
pub(super) fn hide_from_other_processes() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// The measures so far.
#[derive(Default)]
struct Steps {
    in_force: InForce,
}

impl Steps {
    /// Notes the result of a measure, and returns it if it succeeded.
    fn take<T>(&mut self, measure: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.in_force.missing.push(format!("{measure}: {reason}"))).ok()
    }

    fn no_new_privs(&mut self) {
        self.in_force.no_new_privs = self.take("no_new_privs", sys::set_no_new_privs().map_err(describe)).is_some();
    }
}

fn describe(error: io::Error) -> String {
    error.to_string()
}
