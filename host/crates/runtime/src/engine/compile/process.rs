//! The process that compiles, from the host's side: started, fed, waited for, ended.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};

use super::{CompileError, CompilerLimits};
use crate::engine::wasmtime_engine::Tier;

/// How much is kept of what the process says, in bytes.
const MAX_SAID: u64 = 8 << 10;

/// How much the process gets of a machine that others use, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessPriority {
    /// What it needs, or a fair share less than the host.
    Normal,
    /// What is left.
    Background,
}

/// Compiles a component into a file, in a process of this program.
pub(super) async fn compile(
    program: &Path,
    limits: &CompilerLimits,
    component: &[u8],
    tier: Tier,
    priority: ProcessPriority,
    into: File,
) -> Result<(), CompileError> {
    let unable = |error: std::io::Error| CompileError::Unable(format!("{}: {error}", program.display()));
    let mut process = start(program, limits, tier, priority, into).map_err(unable)?;
    // Bounded by the host as well: a process may wait, or be stopped, and use no time at all.
    let Ok(ended) = tokio::time::timeout(limits.timeout, attend(&mut process, component)).await else {
        // If that fails it has ended just now; and it is ended when it is dropped, anyway.
        let _ = process.kill().await;
        return Err(CompileError::Time(limits.timeout));
    };
    let (status, said) = ended.map_err(unable)?;
    CompileError::of(status, &said, limits).map_or(Ok(()), Err)
}

/// Starts the process: no environment, so no secrets; its output goes into the file, and there is no other it could write.
fn start(
    program: &Path,
    limits: &CompilerLimits,
    tier: Tier,
    priority: ProcessPriority,
    into: File,
) -> std::io::Result<Child> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let cpu = limits.timeout.as_secs().saturating_add(1).saturating_mul(cores);
    let mut command = Command::new(program);
    #[cfg(unix)]
    command.arg0("modhost");
    command
        .args(["compile-component", "--tier", tier.name()])
        .args(["--memory", &limits.memory.to_string(), "--cpu", &cpu.to_string()])
        .args((priority == ProcessPriority::Background).then_some("--background"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(into)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Gives the process its component and waits for its end.
async fn attend(process: &mut Child, component: &[u8]) -> std::io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (process.stdin.take(), process.stderr.take());
    let (_open, said, status) = tokio::join!(feed(stdin, component), hear(stderr), process.wait());
    Ok((status?, said))
}

/// Writes the component; the pipe stays open, since its end means that the host is gone.
async fn feed(stdin: Option<ChildStdin>, component: &[u8]) -> Option<ChildStdin> {
    let mut stdin = stdin?;
    let length = (component.len() as u64).to_le_bytes();
    // Who doesn't read it to its end has ended, and how is told by its status.
    if stdin.write_all(&length).await.is_ok() {
        let _ = stdin.write_all(component).await;
    }
    Some(stdin)
}

/// Reads the beginning of what the process says, and closes its ear.
async fn hear(stderr: Option<ChildStderr>) -> String {
    let mut said = Vec::new();
    if let Some(stderr) = stderr {
        // What has been read before an error is worth having.
        let _ = stderr.take(MAX_SAID).read_to_end(&mut said).await;
    }
    String::from_utf8_lossy(&said).into_owned()
}
