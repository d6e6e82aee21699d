//! The build command of a module: its folder, environment and output.

mod missing;
mod progress;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use modhost_config::Module;
use progress::Progress;

/// Folders below a module's folder where the tools of its language install programs.
#[cfg(not(windows))]
const TOOL_FOLDERS: [&str; 2] = [".venv/bin", "node_modules/.bin"];
#[cfg(windows)]
const TOOL_FOLDERS: [&str; 2] = [".venv/Scripts", "node_modules/.bin"];

/// Tells build tools that `modhost dev` waits for the build: they may optimize less to finish earlier.
const DEV_BUILD: (&str, &str) = ("MODHOST_DEV_BUILD", "1");

/// Makes programs print colors, although their output is a pipe that the progress line reads.
const COLOR_VARIABLES: [(&str, &str); 3] =
    [("CARGO_TERM_COLOR", "always"), ("CLICOLOR_FORCE", "1"), ("FORCE_COLOR", "1")];

/// How long to wait for remaining output after a build has ended. A background process may keep the pipe open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// What a build is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve, in production or in tests.
    Serve,
    /// For `modhost dev`, where the author waits for it.
    Dev,
}

/// The build command of a module.
#[derive(Clone, Debug)]
pub(super) struct BuildCommand {
    /// The name of the module.
    module: String,
    /// The command, as written in modules.toml.
    pub text: String,
    /// The folder it runs in.
    pub folder: PathBuf,
    /// Whether the module has a folder of its own.
    has_own_folder: bool,
}

impl BuildCommand {
    /// Returns the build command of a module, if it has one. It runs in the folder of the settings file that has the
    /// module, unless the module has its own.
    pub fn of(module: &Module) -> Option<Self> {
        let text = module.build.clone()?;
        let beside = || module.location.file.parent().unwrap_or(Path::new(""));
        let folder = module.folder.as_deref().unwrap_or_else(beside);
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let name = module.name.to_string();
        Some(Self { module: name, text, folder: folder.to_owned(), has_own_folder: module.folder.is_some() })
    }

    /// Runs the command. Its output goes to the terminal, above a progress line. Dropping the future kills the command.
    ///
    /// # Errors
    ///
    /// If the command cannot be started.
    pub async fn run(&self, purpose: Purpose) -> Result<ExitStatus, String> {
        let mut command = self.prepare()?;
        if purpose == Purpose::Dev {
            command.env(DEV_BUILD.0, DEV_BUILD.1);
        } else {
            command.env_remove(DEV_BUILD.0);
        }
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let build = format!("{}: {} ({purpose:?})", folder.display(), self.module);
        let Some(progress) = Progress::start(&self.module, &self.text, build) else {
            return command.status().await.map_err(cannot_run);
        };
        let status = run_with_progress(command, &progress).await;
        progress.end(status.as_ref().is_ok_and(ExitStatus::success));
        status.map_err(cannot_run)
    }

    /// Prepares the command.
    ///
    /// # Errors
    ///
    /// If its folder does not exist. The error of a shell would be hard to understand.
    fn prepare(&self) -> Result<Command, String> {
        if !self.folder.is_dir() {
            return Err(format!(
                "there is no folder {}; set `folder` in modules.toml to the folder of the sources",
                self.folder.display()
            ));
        }
        let (program, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut shell = Command::new(program);
        shell.arg(flag).arg(&self.text).current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        if self.has_own_folder {
            shell.env("PATH", self.path()?);
        }
        Ok(shell)
    }

    /// Returns whether the command calls a program by name.
    pub fn calls(&self, program: &str) -> bool {
        self.text.split(|it: char| it.is_whitespace() || ";&|()".contains(it)).any(|word| word == program)
    }

    /// Returns files that change when the build tools change: this program, and packages installed in the module's folder.
    pub fn tools(&self) -> Vec<PathBuf> {
        let packages = |lib: PathBuf| {
            let versions = std::fs::read_dir(lib).into_iter().flatten().flatten();
            versions.map(|it| it.path().join("site-packages")).collect::<Vec<_>>()
        };
        let mut tools = packages(self.folder.join(".venv/lib"));
        tools.push(self.folder.join("node_modules/.package-lock.json"));
        tools.extend(env::current_exe());
        tools
    }

    /// Returns what to install, if the command failed because a tool is missing.
    pub fn missing_tool_advice(&self, status: ExitStatus) -> Option<String> {
        let path = if self.has_own_folder { self.path().ok()? } else { env::var_os("PATH").unwrap_or_default() };
        let is_installed = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
        missing::advice(status.code(), &self.text, &self.folder, is_installed)
    }

    /// Returns `PATH` for a command in the module's own folder: programs installed there, then the folder of this program, so
    /// that `modhost` is the same version, then the user's `PATH`.
    fn path(&self) -> Result<OsString, String> {
        let folder = std::path::absolute(&self.folder).map_err(|error| error.to_string())?;
        let this_program = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
        let user_path = env::var_os("PATH").unwrap_or_default();
        let folders =
            TOOL_FOLDERS.iter().map(|tools| folder.join(tools)).chain(this_program).chain(env::split_paths(&user_path));
        env::join_paths(folders)
            .map_err(|error| format!("cannot set PATH for the folder {}: {error}", folder.display()))
    }
}

/// Runs a command and shows its output above a progress line.
async fn run_with_progress(mut command: Command, progress: &Progress) -> std::io::Result<ExitStatus> {
    for (name, value) in COLOR_VARIABLES {
        if env::var_os(name).is_none() && env::var_os("NO_COLOR").is_none() {
            command.env(name, value);
        }
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = async {
        let stdout = async {
            if let Some(stdout) = stdout {
                progress.forward(stdout).await;
            }
        };
        let stderr = async {
            if let Some(stderr) = stderr {
                progress.forward(stderr).await;
            }
        };
        tokio::join!(stdout, stderr);
    };
    let mut output = std::pin::pin!(output);
    tokio::select! {
        status = child.wait() => {
            let _ = tokio::time::timeout(OUTPUT_TIMEOUT, output).await;
            status
        }
        () = &mut output => child.wait().await,
    }
}

fn cannot_run(error: std::io::Error) -> String {
    format!("cannot run the build command: {error}")
}
