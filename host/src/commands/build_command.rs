//! A module's build command: where it runs, and what it finds there.

mod missing;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use crate::config::Module;

/// Where programs lie that a language's own tools put into a module's folder, by their usual names.
#[cfg(not(windows))]
const TOOLS: [&str; 2] = [".venv/bin", "node_modules/.bin"];
#[cfg(windows)]
const TOOLS: [&str; 2] = [".venv/Scripts", "node_modules/.bin"];

/// How a module is built: its command, and where that runs.
#[derive(Clone, Debug)]
pub(super) struct BuildCommand {
    /// The command, as modules.toml has it.
    pub text: String,
    /// Where it runs.
    pub folder: PathBuf,
    /// Whether the folder is the module's own.
    own: bool,
}

impl BuildCommand {
    /// The command of a module, if it has one; `file` is the modules.toml it stands in.
    pub fn of(module: &Module, file: &Path) -> Option<Self> {
        let text = module.build.clone()?;
        let beside = || file.parent().unwrap_or(Path::new(""));
        let folder = module.folder.as_deref().unwrap_or_else(beside);
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Some(Self { text, folder: folder.to_owned(), own: module.folder.is_some() })
    }

    /// The command, ready to run, with its output on the terminal. It ends with whoever started it.
    ///
    /// # Errors
    ///
    /// When its folder isn't there, which nobody would read out of what a shell says.
    pub fn prepare(&self) -> Result<Command, String> {
        if !self.folder.is_dir() {
            return Err(format!(
                "there is no folder {}; its `folder` in modules.toml should be where its sources are",
                self.folder.display()
            ));
        }
        let (program, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut shell = Command::new(program);
        shell.arg(flag).arg(&self.text).current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        if self.own {
            shell.env("PATH", self.path()?);
        }
        Ok(shell)
    }

    /// What to install, if it failed for want of a tool.
    pub fn missing(&self, status: ExitStatus) -> Option<String> {
        let path = if self.own { self.path().ok()? } else { env::var_os("PATH").unwrap_or_default() };
        let is_there = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
        missing::advice(status.code(), &self.text, &self.folder, is_there)
    }

    /// Where a command in a folder of the module's own looks for programs: among those its tools installed there, then
    /// beside this one, so that `modhost` in it is this very version, then where everyone does.
    fn path(&self) -> Result<OsString, String> {
        let folder = std::path::absolute(&self.folder).map_err(|error| error.to_string())?;
        let own = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
        let usual = env::var_os("PATH").unwrap_or_default();
        let folders = TOOLS.iter().map(|tools| folder.join(tools)).chain(own).chain(env::split_paths(&usual));
        env::join_paths(folders)
            .map_err(|error| format!("no program can be found from its folder {}: {error}", folder.display()))
    }
}
