//! Landlock: which files, ports and processes a process can reach.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// The newest interface known here. On an older kernel the rules that it lacks are left out.
const NEWEST: ABI = ABI::V10;

/// What the host may do in a folder that it writes to. Devices, sockets, FIFOs and links are missing.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});

/// What the host may do with the null device.
const WRITE_DEVICE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ WriteFile | Truncate | IoctlDev });

/// Denies access to all files, all ports, and all processes outside. Returns the version of the interface.
pub fn deny_everything() -> Result<u32, String> {
    let restrict = || {
        let rules = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?;
        let rules = rules.handle_access(AccessNet::from_all(NEWEST))?.scope(Scope::from_all(NEWEST))?;
        rules.create()?.restrict_self()
    };
    version(restrict().map_err(|error: RulesetError| error.to_string())?)
}

/// Denies writing outside these folders, executing anything but `program`, and signaling processes other than its own.
/// Returns the version of the interface.
pub fn allow_writes_to(folders: &[&Path], program: &Path) -> Result<u32, String> {
    let open = |path: &Path| PathFd::new(path).map_err(|error| format!("{}: {error}", path.display()));
    let folders = folders.iter().map(|folder| open(folder)).collect::<Result<Vec<_>, _>>()?;
    let null = open(Path::new("/dev/null"))?;
    let interpreter = interpreter(program).map_err(|error| format!("{}: {error}", program.display()))?;
    let programs = [Some(program), interpreter.as_deref()].into_iter().flatten().map(open);
    let programs = programs.collect::<Result<Vec<_>, _>>()?;

    let restrict = || {
        // Connecting to a socket file is a right of newer kernels, and name services need it.
        let handled = (AccessFs::from_write(NEWEST) | AccessFs::Execute) & !BitFlags::from(AccessFs::ResolveUnix);
        let rules = Ruleset::default().handle_access(handled)?.scope(Scope::Signal)?;
        let mut rules = rules.create()?.add_rule(PathBeneath::new(null, WRITE_DEVICE))?;
        for (paths, access) in [(folders, WRITE), (programs, AccessFs::Execute.into())] {
            for path in paths {
                rules = RulesetCreated::add_rule(rules, PathBeneath::new(path, access))?;
            }
        }
        rules.restrict_self()
    };
    version(restrict().map_err(|error: RulesetError| error.to_string())?)
}

fn version(status: RestrictionStatus) -> Result<u32, String> {
    match status.landlock {
        LandlockStatus::NotEnabled => Err("it is disabled in the kernel; add it to the kernel's `lsm=`".into()),
        LandlockStatus::NotImplemented => Err("the kernel lacks it, or the container forbids it".into()),
        LandlockStatus::Available { .. } if status.ruleset == RulesetStatus::NotEnforced => {
            Err("the kernel did not enforce it".into())
        }
        LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi as u32),
    }
}

/// Returns the program that loads a dynamically linked program: the entry PT_INTERP of an ELF file of 64 bits. `None`
/// for a static program. The kernel executes it together with the program.
fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;

    const PT_INTERP: u32 = 3;
    const ENTRY: usize = 56;
    /// More entries, or a longer path, than any program has.
    const MAX_ENTRIES: u16 = 256;
    const MAX_PATH: u64 = 4096;

    let file = File::open(program)?;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let number = |bytes: &[u8], at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let is_supported = header.starts_with(b"\x7fELF\x02\x01") && number(&header, 54, 2) == ENTRY as u64;
    if !is_supported {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not an ELF file of 64 bits"));
    }
    let (table, entries) = (number(&header, 32, 8), number(&header, 56, 2).min(MAX_ENTRIES.into()));
    for index in 0..entries {
        let mut entry = [0; ENTRY];
        file.read_exact_at(&mut entry, table.saturating_add(index * ENTRY as u64))?;
        if number(&entry, 0, 4) == u64::from(PT_INTERP) {
            let mut path = vec![0; number(&entry, 32, 8).min(MAX_PATH) as usize];
            file.read_exact_at(&mut path, number(&entry, 8, 8))?;
            path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
            return Ok(Some(std::ffi::OsString::from_vec(path).into()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_interpreter_of_a_program() {
        let shell = interpreter(Path::new("/bin/sh")).unwrap();
        // A static shell has none.
        assert!(shell.is_none_or(|path| path.is_absolute() && path.exists()));
        assert!(interpreter(Path::new("/etc/passwd")).is_err());
    }
}
