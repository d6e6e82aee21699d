//! The binary as a command that comes to an end.

use std::path::Path;
use std::process::Command;

/// Environment variables, by name.
pub type Variables<'a> = &'a [(&'a str, &'a str)];

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

/// The binary with a command, in a folder; of the environment of the tests it sees nothing but where programs are.
pub fn bare(command: &str, folder: &Path) -> Command {
    let mut modhost = Command::new(env!("CARGO_BIN_EXE_modhost"));
    modhost.arg(command).current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    modhost
}

/// Runs a command to its end, with further arguments and variables.
pub async fn modhost(folder: &Path, command: &str, args: &[&str], variables: Variables<'_>) -> Ran {
    let mut bare = bare(command, folder);
    bare.args(args).envs(variables.iter().copied());
    let output = tokio::process::Command::from(bare).kill_on_drop(true).output();
    let output = tokio::time::timeout(super::PATIENCE, output).await.expect("the command ends").unwrap();
    Ran {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
