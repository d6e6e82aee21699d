//! The host's side of the compile process: starts it, writes the component to it, and waits for its exit.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use modhost_sandbox::InForce;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};

use super::{CompileError, CompilerProgram};
use crate::engine::wasmtime_engine::Tier;

/// The maximum length kept of the process's standard error, in bytes.
const MAX_STDERR: u64 = 8 << 10;

/// The time limit of a probe, which takes a few milliseconds on an idle machine.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// The scheduling priority of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessPriority {
    /// Slightly below the host's priority.
    Normal,
    /// The lowest priority.
    Background,
}

/// Compiles a component into a file, in a separate process.
pub(super) async fn compile(
    compiler: &CompilerProgram,
    component: &[u8],
    tier: Tier,
    priority: ProcessPriority,
    into: File,
) -> Result<(), CompileError> {
    let CompilerProgram { program, limits, .. } = compiler;
    let process_failed = failure_of(program);
    let mut command = command(compiler, tier);
    command.args((priority == ProcessPriority::Background).then_some("--background"));
    let mut process = command.stdout(into).spawn().map_err(process_failed)?;
    // The process limits its own CPU time only. The host limits the elapsed time, in case the process is stopped or
    // blocked.
    let Ok(exited) = tokio::time::timeout(limits.timeout, feed_and_wait(&mut process, component)).await else {
        // Fails if the process has just exited. Dropping it also kills it.
        let _ = process.kill().await;
        return Err(CompileError::Time(limits.timeout));
    };
    let (status, stderr) = exited.map_err(process_failed)?;
    CompileError::of(status, &stderr, limits).map_or(Ok(()), Err)
}

/// Starts a process that restricts itself and compiles a small component, and returns the restrictions in force.
///
/// # Errors
///
/// If the process doesn't work, for example because it can't put a restriction in force that the mode requires.
pub(super) async fn probe(compiler: &CompilerProgram) -> Result<InForce, CompileError> {
    let CompilerProgram { program, limits, .. } = compiler;
    let process_failed = failure_of(program);
    let mut command = command(compiler, Tier::Optimized);
    let output = command.arg("--probe").stdout(Stdio::piped()).output();
    let Ok(output) = tokio::time::timeout(PROBE_TIMEOUT, output).await else {
        return Err(CompileError::Time(PROBE_TIMEOUT));
    };
    let output = output.map_err(process_failed)?;
    if let Some(error) = CompileError::of(output.status, &String::from_utf8_lossy(&output.stderr), limits) {
        return Err(error);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| process_failed(error.into()))
}

fn failure_of(program: &Path) -> impl Fn(std::io::Error) -> CompileError + Copy {
    move |error| CompileError::ProcessFailed(format!("{}: {error}", program.display()))
}

/// Returns the command of the process, without an environment and so without secrets. What it writes to standard output
/// is up to the caller.
fn command(compiler: &CompilerProgram, tier: Tier) -> Command {
    let CompilerProgram { program, limits, sandbox } = compiler;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let cpu = limits.timeout.as_secs().saturating_add(1).saturating_mul(cores);
    let mut command = Command::new(program);
    #[cfg(unix)]
    command.arg0("modhost");
    command
        .args(["compile-component", "--tier", tier.name(), "--sandbox", sandbox.name()])
        .args(["--memory", &limits.memory.to_string(), "--cpu", &cpu.to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Writes the component to the process and waits for its exit. Returns its status and standard error.
async fn feed_and_wait(process: &mut Child, component: &[u8]) -> std::io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (process.stdin.take(), process.stderr.take());
    let (_stdin, stderr, status) = tokio::join!(feed(stdin, component), read_stderr(stderr), process.wait());
    Ok((status?, stderr))
}

/// Writes the component and returns the pipe. The pipe must stay open: the process exits when it is closed.
async fn feed(stdin: Option<ChildStdin>, component: &[u8]) -> Option<ChildStdin> {
    let mut stdin = stdin?;
    let length = (component.len() as u64).to_le_bytes();
    // A write fails only if the process has exited; its status has the reason.
    if stdin.write_all(&length).await.is_ok() {
        let _ = stdin.write_all(component).await;
    }
    Some(stdin)
}

/// Reads the beginning of the process's standard error, then closes the pipe.
async fn read_stderr(stderr: Option<ChildStderr>) -> String {
    let mut bytes = Vec::new();
    if let Some(stderr) = stderr {
        // The bytes read before an error are kept.
        let _ = stderr.take(MAX_STDERR).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
