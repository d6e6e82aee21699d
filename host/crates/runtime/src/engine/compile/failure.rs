//! Why compiling a component failed, in people's words.

use std::process::ExitStatus;
use std::time::Duration;

use bytesize::ByteSize;

use super::{CompilerLimits, child};

/// Why a component wasn't compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Wasmtime refuses it.
    #[error("it can't be compiled: {0}")]
    Refused(String),
    /// It took too long.
    #[error(
        "compiling it took longer than {}, `timeout` in [server.compiler]; if the component is meant to be that large, \
         give it more time there, or else look for what makes it so", humantime::format_duration(*.0)
    )]
    Time(Duration),
    /// It took too much memory.
    #[error(
        "compiling it took more memory than {}, `memory` in [server.compiler]; if the component is meant to be that \
         large, give it more there, or else look for what makes it so", ByteSize(*.0).display().iec()
    )]
    Memory(u64),
    /// What it is compiled to is too large.
    #[error("what it is compiled to is larger than {}, `memory` in [server.compiler]", ByteSize(*.0).display().iec())]
    Output(u64),
    /// Someone else ended the process that compiled it.
    #[error(
        "the process that compiled it was killed, and not by this host: the system may be out of memory (`dmesg` says); it \
         is tried again by itself, in ever longer intervals"
    )]
    Killed,
    /// The compiler is broken.
    #[error(
        "the compiler broke on it ({how}), which is no fault of the component; please report it with the file{said}"
    )]
    Crashed {
        /// How it ended.
        how: String,
        /// What it said, behind a colon; empty if it said nothing.
        said: String,
    },
    /// It couldn't be tried.
    #[error("the process that would compile it doesn't work: {0}")]
    Unable(String),
}

/// What is said by who gets no memory: Rust's allocator before it aborts, its standard library, and the system.
const OUT_OF_MEMORY: [&str; 3] = ["memory allocation of", "out of memory", "Cannot allocate memory"];

impl CompileError {
    /// Whether the component took more than it may.
    pub(super) fn is_a_limit(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Memory(_) | Self::Output(_))
    }

    /// What the end of a compiling process means; none if it did its work.
    pub(super) fn of(status: ExitStatus, said: &str, limits: &CompilerLimits) -> Option<Self> {
        let said = said.trim();
        if status.success() {
            return None;
        }
        if OUT_OF_MEMORY.iter().any(|words| said.contains(words)) {
            return Some(Self::Memory(limits.memory));
        }
        let signal = signal(status);
        let behind = if said.is_empty() { String::new() } else { format!(": {said}") };
        Some(match (status.code(), signal) {
            (Some(code), _) if code == i32::from(child::REFUSED) => Self::Refused(said.to_owned()),
            (Some(code), _) if code == i32::from(child::UNABLE) => Self::Unable(said.to_owned()),
            (_, Some("SIGXCPU")) => Self::Time(limits.timeout),
            (_, Some("SIGXFSZ")) => Self::Output(limits.memory),
            (_, Some("SIGKILL")) => Self::Killed,
            (_, Some(signal)) => Self::Crashed { how: signal.to_owned(), said: behind },
            (_, None) => Self::Crashed { how: status.to_string(), said: behind },
        })
    }
}

/// The signal that ended a process, if one did.
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

    fn of(raw: i32, said: &str) -> String {
        CompileError::of(ExitStatus::from_raw(raw), said, &LIMITS).expect("a failure").to_string()
    }

    #[test]
    fn each_end_has_its_words() {
        assert_eq!(CompileError::of(ExitStatus::from_raw(0), "", &LIMITS), None);
        let refused = i32::from(child::REFUSED) << 8;
        assert_eq!(of(refused, "invalid opcode\n"), "it can't be compiled: invalid opcode");
        let ends = [
            (24, "", "compiling it took longer than 1m, `timeout` in [server.compiler]"),
            (25, "", "what it is compiled to is larger than 1.0 GiB, `memory` in [server.compiler]"),
            (6, "memory allocation of 64 bytes failed", "took more memory than 1.0 GiB, `memory` in [server.compiler]"),
            (4 << 8, "it didn't get the component: out of memory", "took more memory than 1.0 GiB"),
            (6, "it panicked", "the compiler broke on it (SIGABRT)"),
            (6, "it panicked", "report it with the file: it panicked"),
            (11, "", "the compiler broke on it (SIGSEGV)"),
            (9, "", "was killed, and not by this host"),
            (31, "", "the compiler broke on it (a signal)"),
            (101 << 8, "it panicked", "the compiler broke on it (exit status: 101)"),
        ];
        for (raw, said, words) in ends {
            assert!(of(raw, said).contains(words), "{raw}: {}", of(raw, said));
        }
    }
}
