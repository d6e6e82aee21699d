//! The compile process itself: `modhost compile-component`.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use super::super::wasmtime_engine::{self, Tier};
use modhost_contract::compat;
use modhost_sandbox::{InForce, SandboxMode};

/// The exit code if Wasmtime refuses the component; the reason is on standard error.
pub(super) const REFUSED: u8 = 3;
/// The exit code if the process can't compile for another reason; the reason is on standard error.
pub(super) const PROCESS_FAILED: u8 = 4;

/// The arguments of `modhost compile-component`, set by the host.
#[derive(clap::Args)]
pub struct ChildArgs {
    /// The compiler to use
    #[arg(long, value_enum)]
    pub(super) tier: Tier,
    /// The memory it may take, in bytes
    #[arg(long)]
    pub(super) memory: u64,
    /// The processor time it may take, in seconds, all threads together
    #[arg(long)]
    pub(super) cpu: u64,
    /// Leave the processor to everyone else
    #[arg(long)]
    pub(super) background: bool,
    /// Whether the process restricts itself: auto, required or off
    #[arg(long, default_value = "auto")]
    pub(super) sandbox: SandboxMode,
    /// Compile a small component and write the restrictions in force to standard output
    #[arg(long)]
    pub(super) probe: bool,
}

/// A component with a core module that has one empty function.
const SMALL_COMPONENT: &[u8] =
    b"\0asm\x0d\0\x01\0\x01\x18\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";

/// Limits and restricts the process, compiles the component on standard input, and writes the code to standard output.
///
/// Standard input is the component's length (8 bytes, little-endian), then the component. The host keeps the pipe open
/// until the process has exited; if it is closed earlier, the process exits.
///
/// From the first byte of the component on, the process counts as taken over, so it gives up everything that compiling
/// doesn't need before it reads one.
pub fn run(args: &ChildArgs) -> ExitCode {
    let failed = |code, reason: String| {
        // Fails if the host no longer reads it.
        let _ = write!(io::stderr(), "{reason}");
        ExitCode::from(code)
    };
    if io::stdin().is_terminal() {
        return failed(
            PROCESS_FAILED,
            "the host starts this command to compile; to check a component, run `modhost check`\n".into(),
        );
    }
    let _ = modhost_sandbox::restore_time_slice(); // inherited from the host; a shorter one only costs some switches
    if let Err(error) = modhost_sandbox::close_inherited_files() {
        return failed(PROCESS_FAILED, format!("it can't close the files that it inherited: {error}"));
    }
    if let Err(error) = limit_self(args) {
        return failed(PROCESS_FAILED, format!("it can't set its resource limits: {error}"));
    }
    // Reads files of the system, which the process can't do later.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let in_force = match modhost_sandbox::confine_compiler(args.sandbox) {
        Ok(in_force) => in_force,
        Err(error) => return failed(PROCESS_FAILED, format!("it can't restrict itself: {error}")),
    };
    // Without these threads, Cranelift starts its own, at most one for each core of the machine.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(cores).build_global();
    if args.probe {
        return report(&in_force);
    }
    let component = match read_component() {
        Ok(component) => component,
        Err(error) => return failed(PROCESS_FAILED, format!("it can't read the component: {error}")),
    };
    exit_with_the_host();
    let compiled = match wasmtime_engine::compile(&component, args.tier) {
        Ok(compiled) => compiled,
        Err(reason) => return failed(REFUSED, reason),
    };
    let mut out = io::stdout().lock();
    match out.write_all(&compiled).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(PROCESS_FAILED, format!("it can't write the compiled code: {error}")),
    }
}

/// Compiles a small component, to find out whether the restrictions permit it, and writes them to standard output.
fn report(in_force: &InForce) -> ExitCode {
    let compiled = wasmtime_engine::compile(SMALL_COMPONENT, Tier::Optimized).map(drop);
    let report = compiled.and_then(|()| serde_json::to_string(in_force).map_err(|error| error.to_string()));
    let written = report.and_then(|report| writeln!(io::stdout(), "{report}").map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Fails if the host no longer reads it.
            let _ = write!(io::stderr(), "{error}");
            ExitCode::from(PROCESS_FAILED)
        }
    }
}

fn read_component() -> io::Result<Vec<u8>> {
    let mut input = io::stdin().lock();
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > compat::MAX_SIZE {
        return Err(io::Error::other("the component is too large"));
    }
    let mut component = Vec::new();
    input.by_ref().take(length).read_to_end(&mut component)?;
    if component.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(component)
}

/// Exits this process when its standard input is closed: the host was killed or dropped the pipe.
fn exit_with_the_host() {
    std::thread::spawn(|| {
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(i32::from(PROCESS_FAILED));
    });
}

/// Sets the limits of memory, CPU time and file size, disables core dumps, and lowers the scheduling priority, except
/// for a quick compilation that an author waits for.
#[cfg(unix)]
fn limit_self(args: &ChildArgs) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

    /// The nice value of compilations: they get about a third of the CPU time of other processes.
    const NICE: i32 = 5;
    /// The nice value of compilations in the background.
    const NICE_BACKGROUND: i32 = 19;

    // On Linux, RLIMIT_DATA counts private writable memory, but not reserved address space or the mapped program file.
    // On other systems it doesn't exist or counts almost nothing, so the address space is limited instead.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let memory = Resource::Data;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let memory = Resource::As;

    for (resource, limit) in
        [(memory, args.memory), (Resource::Cpu, args.cpu), (Resource::Fsize, args.memory), (Resource::Core, 0)]
    {
        // A lower limit is kept. Exceeding the soft CPU limit sends SIGXCPU, by which the host recognizes the cause; a
        // second later the hard limit kills the process.
        let max = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let hard = if resource == Resource::Cpu { limit.saturating_add(1) } else { limit };
        let lowered = Rlimit { current: Some(limit.min(max)), maximum: Some(hard.min(max)) };
        if let Err(error) = setrlimit(resource, lowered) {
            // macOS doesn't support limiting the address space.
            if cfg!(any(target_os = "linux", target_os = "android")) || resource != memory {
                return Err(error.into());
            }
        }
    }
    if args.tier != Tier::Baseline {
        // Failing to lower the priority is harmless.
        let _ = nice(if args.background { NICE_BACKGROUND } else { NICE });
    }
    Ok(())
}

/// Does nothing: on other systems only the host's time limit applies.
#[cfg(not(unix))]
fn limit_self(_: &ChildArgs) -> io::Result<()> {
    Ok(())
}
