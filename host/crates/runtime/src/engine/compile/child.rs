//! The process that compiles, from its inside: `modhost compile-component`.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use super::super::wasmtime_engine::{self, Tier};
use modhost_contract::compat;

/// The exit code of a component that Wasmtime refuses; the reason is on standard error.
pub(super) const REFUSED: u8 = 3;
/// The exit code of a process that can't do its work; the reason is on standard error.
pub(super) const UNABLE: u8 = 4;

/// What the process is told by the host that starts it.
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
}

/// Closes in on itself, compiles the component that standard input brings, and writes it to standard output.
///
/// Standard input is the component's length in eight bytes, the component, and then nothing, until the host has no more
/// use for the result or is gone.
pub fn run(args: &ChildArgs) -> ExitCode {
    let failed = |code, reason: String| {
        // Nobody may be left to read it.
        let _ = write!(io::stderr(), "{reason}");
        ExitCode::from(code)
    };
    if io::stdin().is_terminal() {
        return failed(UNABLE, "this is how the host starts itself to compile; people want `modhost check`\n".into());
    }
    if let Err(error) = confine(args) {
        return failed(UNABLE, format!("it can't limit itself: {error}"));
    }
    let component = match receive() {
        Ok(component) => component,
        Err(error) => return failed(UNABLE, format!("it didn't get the component: {error}")),
    };
    end_with_the_host();
    let compiled = match wasmtime_engine::compile(&component, args.tier) {
        Ok(compiled) => compiled,
        Err(reason) => return failed(REFUSED, reason),
    };
    let mut out = io::stdout().lock();
    match out.write_all(&compiled).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(UNABLE, format!("what it compiled can't be written: {error}")),
    }
}

fn receive() -> io::Result<Vec<u8>> {
    let mut input = io::stdin().lock();
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > compat::MAX_SIZE {
        return Err(io::Error::other("it is too large"));
    }
    let mut component = Vec::new();
    input.by_ref().take(length).read_to_end(&mut component)?;
    if component.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(component)
}

/// Ends this process when its standard input does: the host was killed, and nobody waits for the result.
fn end_with_the_host() {
    std::thread::spawn(|| {
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(i32::from(UNABLE));
    });
}

/// Takes from this process what it doesn't need: memory and time beyond its limits, dumps of its memory, and, unless an
/// author sits and waits, the right of way before the host that serves.
#[cfg(unix)]
fn confine(args: &ChildArgs) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

    /// How much this process gives way to others: it gets about a third of what they get.
    const GIVES_WAY: i32 = 5;
    /// The same where nobody waits for the result: builds go first.
    const GIVES_WAY_TO_ALL: i32 = 19;

    // On Linux the memory that is written to is counted, not what is only reserved or mapped from the program's file;
    // elsewhere that doesn't exist or counts next to nothing, and the address space stands in for it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let memory = Resource::Data;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let memory = Resource::As;

    for (resource, limit) in
        [(memory, args.memory), (Resource::Cpu, args.cpu), (Resource::Fsize, args.memory), (Resource::Core, 0)]
    {
        // A lower one stays as it is. Beyond the soft limit of CPU time, the signal says what it was; a second later the
        // hard one ends who doesn't heed it.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let hard = if resource == Resource::Cpu { limit.saturating_add(1) } else { limit };
        let lowered = Rlimit { current: Some(limit.min(most)), maximum: Some(hard.min(most)) };
        if let Err(error) = setrlimit(resource, lowered) {
            // macOS has no limit of the address space.
            if cfg!(any(target_os = "linux", target_os = "android")) || resource != memory {
                return Err(error.into());
            }
        }
    }
    if args.tier != Tier::Quick {
        // Who can't give way any further is polite enough.
        let _ = nice(if args.background { GIVES_WAY_TO_ALL } else { GIVES_WAY });
    }
    Ok(())
}

/// Elsewhere the host's own limit of time is all there is.
#[cfg(not(unix))]
fn confine(_: &ChildArgs) -> io::Result<()> {
    Ok(())
}
