//! Compiles each component in a separate process.
//!
//! Wasmtime can't limit the time or memory of a compilation, or cancel it. So the host starts its own program for each
//! component: a process without an environment and with hard limits, which reads the component from standard input and
//! writes the compiled code to a file that the host opened. A process that exceeds a limit is killed, and the host is
//! unaffected. The process restricts itself before it reads the component (`modhost_sandbox`), so that a component that
//! takes over the compiler reaches nothing.

mod child;
mod failure;
mod process;
mod queue;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use child::{ChildArgs, run as run_child};
pub use failure::CompileError;
pub(super) use queue::Job;
pub use queue::Priority;

use super::wasmtime_engine::{self, Tier};
use modhost_sandbox::{InForce, SandboxMode};
use process::ProcessPriority;
use queue::{CompilePermit, Queue};

/// The short permit for small components lasts `timeout / SHORT_PERMIT_DIVISOR`. Small components rarely take longer.
const SHORT_PERMIT_DIVISOR: u32 = 30;

/// The limits of compilations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompilerLimits {
    /// The maximum duration of a compilation.
    pub timeout: Duration,
    /// The maximum memory of a compilation, in bytes.
    pub memory: u64,
    /// The number of concurrent compilations, not counting the extra permit for small components. Each compilation uses
    /// all cores.
    pub processes: usize,
}

impl Default for CompilerLimits {
    /// The largest language interpreters take five seconds on two idle cores, a minute on a busy machine, and a fifth
    /// of this memory.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), memory: 2 << 30, processes: 2 }
    }
}

/// Where components are compiled.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// In this process, without limits: for programs that use this crate as a library and load trusted components.
    #[default]
    InProcess,
    /// In a separate process of the `modhost` program.
    Subprocess(CompilerProgram),
}

/// The `modhost` program that compiles components, and what it may use.
#[derive(Clone, Debug)]
pub struct CompilerProgram {
    /// The path of the program.
    pub program: PathBuf,
    /// The limits of compilations.
    pub limits: CompilerLimits,
    /// Whether the process restricts itself.
    pub sandbox: SandboxMode,
}

impl CompilerProgram {
    /// Finds out which restrictions the compile process can put in force. In the mode [`SandboxMode::Auto`], if the
    /// process doesn't work with them, turns them off, and returns that as the reason why they are missing.
    ///
    /// # Errors
    ///
    /// If the process doesn't work, or can't put all restrictions in force and the mode requires them.
    pub async fn probe_sandbox(&mut self) -> Result<InForce, CompileError> {
        let error = match process::probe(self).await {
            Err(error) if self.sandbox == SandboxMode::Auto => error,
            probed => return probed,
        };
        self.sandbox = SandboxMode::Off;
        process::probe(self).await?;
        Ok(InForce::nothing(format!("the compiler does not work with restrictions: {error}")))
    }
}

/// Returns the path of the running program, for [`Compiler::Subprocess`] if it is `modhost`.
///
/// # Errors
///
/// If the system can't report the path.
pub fn this_program() -> std::io::Result<PathBuf> {
    // On Linux this starts the running file even if it has been replaced since.
    let running = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() { Ok(running) } else { std::env::current_exe() }
}

/// The compiler and its queue.
pub(super) struct Compilers {
    compiler: Compiler,
    queue: Queue,
}

impl Compilers {
    pub fn new(compiler: Compiler) -> Self {
        let slots = match &compiler {
            Compiler::InProcess => CompilerLimits::default().processes,
            Compiler::Subprocess(compiler) => compiler.limits.processes,
        };
        Self { compiler, queue: Queue::new(slots) }
    }

    /// Waits in the queue for a compile permit.
    pub async fn acquire(&self, job: Job) -> CompilePermit {
        self.queue.acquire(job).await
    }

    /// Compiles a component into a file, releases the permit, and returns the duration. Returns `None` if a short
    /// permit expired or the permit was preempted; the job then has to queue again.
    ///
    /// # Errors
    ///
    /// If the component can't be compiled within the limits. The content of the file is then undefined, as it is for
    /// `None`.
    pub async fn compile(
        &self,
        mut permit: CompilePermit,
        component: &Arc<Vec<u8>>,
        tier: Tier,
        into: File,
    ) -> Result<Option<Duration>, CompileError> {
        let started = Instant::now();
        let compiled = match &self.compiler {
            Compiler::InProcess => compile_in_process(component.clone(), tier, into).await,
            Compiler::Subprocess(compiler) if permit.is_background() => {
                tokio::select! {
                    compiled = process::compile(compiler, component, tier, ProcessPriority::Background, into) => compiled,
                    () = permit.preempted() => return Ok(None),
                }
            }
            Compiler::Subprocess(compiler) => {
                let timeout = compiler.limits.timeout;
                let time = if permit.is_short() { timeout / SHORT_PERMIT_DIVISOR } else { Duration::MAX };
                let compiling = process::compile(compiler, component, tier, ProcessPriority::Normal, into);
                let Ok(compiled) = tokio::time::timeout(time, compiling).await else {
                    permit.mark_overdrawn();
                    return Ok(None);
                };
                compiled
            }
        };
        if compiled.as_ref().is_err_and(CompileError::is_limit) {
            permit.mark_overdrawn();
        }
        compiled.map(|()| Some(started.elapsed()))
    }
}

async fn compile_in_process(component: Arc<Vec<u8>>, tier: Tier, mut into: File) -> Result<(), CompileError> {
    let compiling = tokio::task::spawn_blocking(move || {
        let compiled = wasmtime_engine::compile(&component, tier).map_err(CompileError::Refused)?;
        into.write_all(&compiled).map_err(|error| CompileError::ProcessFailed(error.to_string()))
    });
    let crashed =
        |panic: tokio::task::JoinError| CompileError::Crashed { how: panic.to_string(), stderr: String::new() };
    compiling.await.unwrap_or_else(|panic| Err(crashed(panic)))
}
