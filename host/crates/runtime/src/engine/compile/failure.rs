//! Errors of compilations, with messages for people.

use std::process::ExitStatus;
use std::time::Duration;

use bytesize::ByteSize;

use super::{CompilerLimits, child};

/// The reason why a compilation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Wasmtime refuses the component.
    #[error("it can't be compiled: {0}")]
    Refused(String),
    /// The compilation exceeded its time limit.
    #[error(
        "compiling it took longer than {}, `timeout` in [server.compiler]; if the component has to be that large, \
         increase the limit, otherwise find out what makes it so large", humantime::format_duration(*.0)
    )]
    Time(Duration),
    /// The compilation exceeded its memory limit, in bytes.
    #[error(
        "compiling it took more memory than {}, `memory` in [server.compiler]; if the component has to be that \
         large, increase the limit, otherwise find out what makes it so large", ByteSize(*.0).display().iec()
    )]
    Memory(u64),
    /// The compiled code exceeded its size limit, in bytes.
    #[error("its compiled code is larger than {}, `memory` in [server.compiler]", ByteSize(*.0).display().iec())]
    Output(u64),
    /// Something other than the host killed the compile process.
    #[error(
        "the process that compiled it was killed, and not by this host: the system may be out of memory (see `dmesg`); \
         the host retries at increasing intervals"
    )]
    Killed,
    /// The compiler crashed.
    #[error(
        "the compiler crashed on it ({how}), which is a bug in the compiler; please report it with the file{stderr}"
    )]
    Crashed {
        /// The signal, exit status or panic.
        how: String,
        /// The process's standard error after a colon; empty if there was none.
        stderr: String,
    },
    /// The compile process made a system call that only an attack makes.
    #[error(
        "the compiler made a system call that its sandbox forbids, and was killed; do not use the component unless you \
         trust its author, and please report it with the file as a bug: either it attacks the compiler, or the sandbox \
         (`sandbox` in [server]) does not fit this system"
    )]
    Forbidden,
    /// The compile process couldn't do its work.
    #[error("the compile process doesn't work: {0}")]
    ProcessFailed(String),
}

/// The messages of a failed allocation: from Rust's allocator before it aborts, its standard library, and the system.
const OUT_OF_MEMORY: [&str; 3] = ["memory allocation of", "out of memory", "Cannot allocate memory"];

impl CompileError {
    /// Whether the component exceeded a limit.
    pub(super) fn is_limit(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Memory(_) | Self::Output(_))
    }

    /// Interprets the exit status and standard error of a compile process; `None` if it succeeded.
    pub(super) fn of(status: ExitStatus, stderr: &str, limits: &CompilerLimits) -> Option<Self> {
        let stderr = stderr.trim();
        if status.success() {
            return None;
        }
        if OUT_OF_MEMORY.iter().any(|message| stderr.contains(message)) {
            return Some(Self::Memory(limits.memory));
        }
        let signal = signal(status);
        let suffix = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
        Some(match (status.code(), signal) {
            (Some(code), _) if code == i32::from(child::REFUSED) => Self::Refused(stderr.to_owned()),
            (Some(code), _) if code == i32::from(child::PROCESS_FAILED) => Self::ProcessFailed(stderr.to_owned()),
            (_, Some("SIGXCPU")) => Self::Time(limits.timeout),
            (_, Some("SIGXFSZ")) => Self::Output(limits.memory),
            (_, Some("SIGKILL")) => Self::Killed,
            (_, Some("SIGSYS")) => Self::Forbidden,
            (_, Some(signal)) => Self::Crashed { how: signal.to_owned(), stderr: suffix },
            (_, None) => Self::Crashed { how: status.to_string(), stderr: suffix },
        })
    }
}

/// Returns the name of the signal that killed a process, if any.
#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<&'static str> {
    use std::os::unix::process::ExitStatusExt;

    use rustix::process::Signal;

    let names = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::ILL, "SIGILL"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::SYS, "SIGSYS"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    let number = status.signal()?;
    Some(names.iter().find(|(signal, _)| signal.as_raw() == number).map_or("a signal", |(_, name)| name))
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<&'static str> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const LIMITS: CompilerLimits = CompilerLimits { timeout: Duration::from_secs(60), memory: 1 << 30, processes: 1 };

    fn of(raw: i32, stderr: &str) -> String {
        CompileError::of(ExitStatus::from_raw(raw), stderr, &LIMITS).expect("the status must be a failure").to_string()
    }

    #[test]
    fn describes_each_exit_status() {
        assert_eq!(CompileError::of(ExitStatus::from_raw(0), "", &LIMITS), None);
        let refused = i32::from(child::REFUSED) << 8;
        assert_eq!(of(refused, "invalid opcode\n"), "it can't be compiled: invalid opcode");
        let ends = [
            (24, "", "compiling it took longer than 1m, `timeout` in [server.compiler]"),
            (25, "", "its compiled code is larger than 1.0 GiB, `memory` in [server.compiler]"),
            (6, "memory allocation of 64 bytes failed", "took more memory than 1.0 GiB, `memory` in [server.compiler]"),
            (4 << 8, "it can't read the component: out of memory", "took more memory than 1.0 GiB"),
            (6, "it panicked", "the compiler crashed on it (SIGABRT)"),
            (6, "it panicked", "report it with the file: it panicked"),
            (11, "", "the compiler crashed on it (SIGSEGV)"),
            (9, "", "was killed, and not by this host"),
            (31, "", "made a system call that its sandbox forbids"),
            (30, "", "the compiler crashed on it (a signal)"),
            (101 << 8, "it panicked", "the compiler crashed on it (exit status: 101)"),
        ];
        for (raw, stderr, expected) in ends {
            assert!(of(raw, stderr).contains(expected), "{raw}: {}", of(raw, stderr));
        }
    }
}
