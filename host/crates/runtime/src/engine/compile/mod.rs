//! Compiling components, in a process of their own.
//!
//! No setting of Wasmtime bounds how long compiling takes or how much memory, and it can't be broken off. So the host
//! starts itself once more for each component: a process without an environment and with hard limits, which reads the
//! component from its standard input and writes what it is compiled to into a file the host has opened for it. What is
//! beyond a limit is killed, and the host is none the worse for it.

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
use process::ProcessPriority;
use queue::{CompilePermit, Queue};

/// A short turn lasts one of so many parts of the time compiling may take. What is small seldom needs all of it.
const SHORT: u32 = 30;

/// What compiling one component may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompilerLimits {
    /// How long it may take.
    pub timeout: Duration,
    /// How much memory it may take, in bytes.
    pub memory: u64,
    /// How many components are compiled at once, something small beside them left out; each uses every core as it is.
    pub processes: usize,
}

impl Default for CompilerLimits {
    /// The largest interpreters take five seconds on two idle cores, and a fifth of the memory; a busy machine takes a
    /// minute.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), memory: 2 << 30, processes: 2 }
    }
}

/// Who compiles.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// This process, without limits: for programs that use this crate as a library, and trust what they load.
    #[default]
    Here,
    /// A process of this program, which has to be `modhost` itself.
    Apart {
        /// The program.
        program: PathBuf,
        /// What it may use.
        limits: CompilerLimits,
    },
}

/// The program that is running, for [`Compiler::Apart`] if it is `modhost`.
///
/// # Errors
///
/// When the system doesn't say where its file is.
pub fn this_program() -> std::io::Result<PathBuf> {
    // Linux starts the very file that is running, even if another has been put in its place since.
    let running = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() { Ok(running) } else { std::env::current_exe() }
}

/// The compiler with the queue in front of it.
pub(super) struct Compilers {
    compiler: Compiler,
    queue: Queue,
}

impl Compilers {
    pub fn new(compiler: Compiler) -> Self {
        let places = match &compiler {
            Compiler::Here => CompilerLimits::default().processes,
            Compiler::Apart { limits, .. } => limits.processes,
        };
        Self { compiler, queue: Queue::new(places) }
    }

    /// Waits until it is a component's turn.
    pub async fn turn(&self, job: Job) -> CompilePermit {
        self.queue.turn(job).await
    }

    /// Compiles a component into a file, and ends its turn; answers with how long it took, or with nothing if it takes
    /// longer than its turn, or somebody else needs that more: then it has to wait for another.
    ///
    /// # Errors
    ///
    /// When it can't be compiled, or not within the limits. The file may hold anything then, as after a turn that was
    /// too short.
    pub async fn compile(
        &self,
        mut turn: CompilePermit,
        component: &Arc<Vec<u8>>,
        tier: Tier,
        into: File,
    ) -> Result<Option<Duration>, CompileError> {
        let started = Instant::now();
        let compiled = match &self.compiler {
            Compiler::Here => compile_here(component.clone(), tier, into).await,
            Compiler::Apart { program, limits } if turn.is_in_the_background() => {
                tokio::select! {
                    compiled = process::compile(program, limits, component, tier, ProcessPriority::Background, into) => compiled,
                    () = turn.preempted() => return Ok(None),
                }
            }
            Compiler::Apart { program, limits } => {
                let time = if turn.is_short() { limits.timeout / SHORT } else { Duration::MAX };
                let compiling = process::compile(program, limits, component, tier, ProcessPriority::Normal, into);
                let Ok(compiled) = tokio::time::timeout(time, compiling).await else {
                    turn.reached_a_limit();
                    return Ok(None);
                };
                compiled
            }
        };
        if compiled.as_ref().is_err_and(CompileError::is_a_limit) {
            turn.reached_a_limit();
        }
        compiled.map(|()| Some(started.elapsed()))
    }
}

async fn compile_here(component: Arc<Vec<u8>>, tier: Tier, mut into: File) -> Result<(), CompileError> {
    let compiling = tokio::task::spawn_blocking(move || {
        let compiled = wasmtime_engine::compile(&component, tier).map_err(CompileError::Refused)?;
        into.write_all(&compiled).map_err(|error| CompileError::Unable(error.to_string()))
    });
    let crashed = |panic: tokio::task::JoinError| CompileError::Crashed { how: panic.to_string(), said: String::new() };
    compiling.await.unwrap_or_else(|panic| Err(crashed(panic)))
}
