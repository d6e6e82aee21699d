//! Restricts the processes of the host to what they need, and tells the system how to schedule their threads.
//!
//! The process that compiles components reads hostile input, so it is assumed to be taken over: it gets no files, no
//! network, no other processes, and on a host that runs as root a user of its own ([`confine_compiler`]). The host
//! itself writes only to its own folders, starts only its own program, and has no access to system calls that it never
//! makes ([`confine_host`]).
//!
//! Both need Linux. A kernel or a container that lacks a measure gets the others, unless the settings require all.

#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
mod linux;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The shortest time slice that Linux allows.
#[cfg(target_os = "linux")]
const MIN_TIME_SLICE: std::time::Duration = std::time::Duration::from_micros(100);

/// Whether processes are restricted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxMode {
    /// As far as the system allows.
    #[default]
    Auto,
    /// Fully, or the host doesn't start.
    Required,
    /// Not at all.
    Off,
}

impl SandboxMode {
    /// All modes by their names in the settings.
    pub const CHOICES: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("required", Self::Required), ("off", Self::Off)];

    /// Returns the name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::Off => "off",
        }
    }
}

impl std::str::FromStr for SandboxMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mode = Self::CHOICES.into_iter().find(|(name, _)| *name == text);
        mode.map(|(_, mode)| mode).ok_or_else(|| format!("unknown mode {text:?}; one of auto, required, off"))
    }
}

/// The restrictions that are in force in a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Whether the process and its children can't gain privileges.
    pub no_new_privs: bool,
    /// Whether a filter of system calls is in force.
    pub seccomp: bool,
    /// The version of the kernel's Landlock interface in use, if any.
    pub landlock: Option<u32>,
    /// The user that the process changed to, if any.
    pub uid: Option<u32>,
    /// The measures that the system refused, each with the reason.
    pub missing: Vec<String>,
}

impl InForce {
    /// The restrictions of a process that has none, with the reason.
    pub fn nothing(reason: impl Into<String>) -> Self {
        Self { missing: vec![reason.into()], ..Self::default() }
    }
}

impl fmt::Display for InForce {
    /// Lists the measures, for example `no_new_privs, seccomp, Landlock ABI 7, uid 65530`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = [(self.no_new_privs, "no_new_privs"), (self.seccomp, "seccomp")];
        let plain = plain.into_iter().filter(|(is_in_force, _)| *is_in_force).map(|(_, name)| name.to_owned());
        let landlock = self.landlock.map(|abi| format!("Landlock ABI {abi}"));
        let uid = self.uid.map(|uid| format!("uid {uid}"));
        let measures = plain.chain(landlock).chain(uid).collect::<Vec<_>>();
        f.write_str(if measures.is_empty() { "none" } else { "" })?;
        f.write_str(&measures.join(", "))
    }
}

/// The error if required restrictions can't be put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrestricted {
    /// The measures that the system refused, each with the reason.
    pub missing: Vec<String>,
}

impl fmt::Display for Unrestricted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.missing.join("; "))
    }
}

impl std::error::Error for Unrestricted {}

/// Returns what is in force, or the error if something is missing that the settings require.
fn judge(mode: SandboxMode, in_force: InForce) -> Result<InForce, Unrestricted> {
    match mode {
        SandboxMode::Required if !in_force.missing.is_empty() => Err(Unrestricted { missing: in_force.missing }),
        _ => Ok(in_force),
    }
}

/// Restricts this process, which compiles components, for the rest of its life.
///
/// Afterwards it can compute, allocate memory, start threads, and use the files that it has open. It can't open files
/// or sockets, start programs or processes, or signal or inspect other processes. If it is root, it becomes a user that
/// nothing else runs as.
///
/// Call it before the first thread starts, and before the first hostile byte is read.
///
/// # Errors
///
/// If the mode requires all measures and the system refuses one of them.
pub fn confine_compiler(mode: SandboxMode) -> Result<InForce, Unrestricted> {
    match mode {
        SandboxMode::Off => Ok(InForce::default()),
        #[cfg(target_os = "linux")]
        _ => judge(mode, linux::confine_compiler()),
        #[cfg(not(target_os = "linux"))]
        _ => judge(mode, InForce::nothing(NOT_LINUX)),
    }
}

/// Restricts this process, the host, and its child processes for the rest of their lives.
///
/// Afterwards it can write to `writable` folders only, execute `program` only, and not make system calls that a host
/// never needs, such as those that trace processes, mount file systems, load kernel code or create namespaces. It can
/// read what it could before, because changed settings may name any file.
///
/// Call it before the first thread starts: a thread that runs already isn't restricted by Landlock.
///
/// # Errors
///
/// If the mode requires all measures and the system refuses one of them.
pub fn confine_host(mode: SandboxMode, writable: &[&Path], program: &Path) -> Result<InForce, Unrestricted> {
    match mode {
        SandboxMode::Off => Ok(InForce::default()),
        #[cfg(target_os = "linux")]
        _ => judge(mode, linux::confine_host(writable, program)),
        #[cfg(not(target_os = "linux"))]
        _ => {
            let _ = (writable, program);
            judge(mode, InForce::nothing(NOT_LINUX))
        }
    }
}

/// Prevents other processes of this user from inspecting this process: its memory, its environment, its open files.
/// Also disables core dumps, which would contain secrets.
///
/// Call it after the process has opened what it needs of its own entries in `/proc`.
///
/// # Errors
///
/// If the system refuses it.
pub fn hide_from_other_processes() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    linux::hide_from_other_processes()?;
    Ok(())
}

/// Lets the calling thread, and those that it starts later, run soon after they are woken, even while others compute: a
/// shorter time slice means an earlier turn. It changes no thread's share of the CPU time. Linux before 6.12 ignores it.
///
/// # Errors
///
/// If the system refuses it.
pub fn shorten_time_slice() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    linux::set_time_slice(Some(MIN_TIME_SLICE))?;
    Ok(())
}

/// Restores the system's own time slice for the calling thread, and those that it starts later, after
/// [`shorten_time_slice`].
///
/// # Errors
///
/// If the system refuses it.
pub fn restore_time_slice() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    linux::set_time_slice(None)?;
    Ok(())
}

/// Closes all files of this process but standard input, output and error: a program that starts the host may leave
/// files open in it, and child processes inherit them.
///
/// Call it before this process opens a file or starts a thread.
///
/// # Errors
///
/// If the system can't list or close them.
pub fn close_inherited_files() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    linux::close_inherited_files()?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
const NOT_LINUX: &str = "this system has no sandbox that modhost supports; run it on Linux";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_measures_must_not_be_missing() {
        let lacks = InForce { seccomp: true, missing: vec!["Landlock: no".into()], ..InForce::default() };
        assert_eq!(judge(SandboxMode::Auto, lacks.clone()), Ok(lacks.clone()));
        assert_eq!(judge(SandboxMode::Required, lacks).unwrap_err().to_string(), "Landlock: no");
        let complete = InForce { seccomp: true, landlock: Some(7), ..InForce::default() };
        assert_eq!(judge(SandboxMode::Required, complete.clone()), Ok(complete));
    }

    #[test]
    fn lists_measures() {
        let all =
            InForce { no_new_privs: true, seccomp: true, landlock: Some(7), uid: Some(65530), missing: Vec::new() };
        assert_eq!(all.to_string(), "no_new_privs, seccomp, Landlock ABI 7, uid 65530");
        assert_eq!(InForce::nothing("because").to_string(), "none");
    }

    #[test]
    fn modes_have_names() {
        for (name, mode) in SandboxMode::CHOICES {
            assert_eq!((mode.name(), name.parse()), (name, Ok(mode)));
        }
        assert!("on".parse::<SandboxMode>().is_err());
    }
}
