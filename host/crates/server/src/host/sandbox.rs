//! The restrictions of the host and of the processes that compile for it.

use std::path::PathBuf;

use modhost_config::{CompilerSettings, Server};
use modhost_runtime::engine::{Compiler, CompilerLimits, CompilerProgram};
use modhost_sandbox::{InForce, SandboxMode};

use super::StartError;
use crate::admin_api::SandboxView;

/// Returns the compiler, and the restrictions that its processes put in force: the first of them finds out.
///
/// # Errors
///
/// If the settings require all restrictions and one isn't in force.
pub(super) async fn compiler(server: &Server, program: Option<PathBuf>) -> Result<(Compiler, InForce), StartError> {
    let CompilerSettings { timeout, memory, processes } = server.compiler;
    let limits = CompilerLimits { timeout, memory, processes };
    let Some(program) = program else {
        return match server.sandbox {
            SandboxMode::Off => Ok((Compiler::InProcess, InForce::default())),
            _ => Ok((Compiler::InProcess, InForce::nothing("components are compiled in the process of the host"))),
        };
    };
    let mut compiler = CompilerProgram { program, limits, sandbox: server.sandbox };
    let in_force = match (server.sandbox, compiler.probe_sandbox().await) {
        (_, Ok(in_force)) => in_force,
        (SandboxMode::Required, Err(error)) => return Err(StartError::Sandbox(error)),
        // Not an error of the start: cached components serve, and each component that has to be compiled reports it.
        (SandboxMode::Auto | SandboxMode::Off, Err(error)) => InForce::nothing(error.to_string()),
    };
    Ok((Compiler::Subprocess(compiler), in_force))
}

/// Logs which restrictions are in force, and why others aren't.
pub(super) fn log(sandbox: &SandboxView) {
    let SandboxView { mode, host, compiler } = sandbox;
    tracing::info!(mode = mode.name(), %host, %compiler, "restrictions in force");
    for (process, in_force) in [("host", host), ("compiler", compiler)] {
        for reason in &in_force.missing {
            tracing::warn!(process, reason, "a restriction is not in force");
        }
    }
}
