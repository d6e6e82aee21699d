//! Runs the binary as a command that exits.

use std::path::Path;
use std::process::Command;

/// Environment variables, by name.
pub type Variables<'a> = &'a [(&'a str, &'a str)];

/// The result of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A command of the binary in a folder. Of the environment of the tests it gets only PATH.
pub fn bare(command: &str, folder: &Path) -> Command {
    let mut modhost = Command::new(env!("CARGO_BIN_EXE_modhost"));
    modhost.arg(command).current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    modhost
}

/// Runs a command to its end, with additional arguments and variables.
pub async fn modhost(folder: &Path, command: &str, args: &[&str], variables: Variables<'_>) -> CommandOutput {
    let mut bare = bare(command, folder);
    bare.args(args).envs(variables.iter().copied());
    let output = tokio::process::Command::from(bare).kill_on_drop(true).output();
    let output = tokio::time::timeout(super::PATIENCE, output).await.expect("the command exits in time").unwrap();
    CommandOutput {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
