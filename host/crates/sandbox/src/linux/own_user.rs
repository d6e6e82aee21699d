//! A user of its own for the compile process of a host that runs as root.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::sys;

/// The uid and gid of compile processes: in the range that systemd and distributions leave unused (65520 to 65533), and
/// below 65536, so that it exists in containers with a user namespace.
const ID: u32 = 65530;

/// The maximum number of threads of all compile processes of a machine: far more than they start, and far fewer than
/// the machine allows, because a process that was taken over could start as many as it allows.
const MAX_THREADS: u64 = 4096;

/// Changes to the user of compile processes if this process is root. Returns its uid, or `None` for any other user.
///
/// The new user may not be inspected by processes of the same user, because the kernel marks a process that changes its
/// user as not dumpable.
pub fn change_user() -> Result<Option<u32>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    if !can_signal_other_users() {
        return Err("the host has no CAP_KILL, so it could not stop a process of another user".into());
    }
    let threads = Rlimit { current: Some(MAX_THREADS), maximum: Some(MAX_THREADS) };
    // A lower limit is kept.
    if getrlimit(Resource::Nproc).maximum.is_none_or(|maximum| maximum > MAX_THREADS) {
        setrlimit(Resource::Nproc, threads).map_err(|error| format!("limit of threads: {error}"))?;
    }
    let explain = |error| format!("uid {ID}: {error}; the host has no CAP_SETUID and CAP_SETGID, or no such user");
    sys::leave_groups().and_then(|()| sys::change_ids(ID, ID)).map_err(explain)?;
    Ok(Some(ID))
}

/// Gives up the capabilities that are left, if any: some service managers forbid the system call, even to a process
/// that has none.
pub fn drop_capabilities() -> io::Result<()> {
    let has_none = ["CapInh:", "CapPrm:"].into_iter().all(|set| capabilities(set) == Some(0));
    if has_none { Ok(()) } else { sys::drop_capabilities() }
}

/// Whether root may signal processes of other users here; containers can take that from it.
fn can_signal_other_users() -> bool {
    const CAP_KILL: u32 = 5;
    capabilities("CapEff:").is_some_and(|effective| effective >> CAP_KILL & 1 == 1)
}

/// Returns a set of capabilities of this process.
fn capabilities(set: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix(set))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}
