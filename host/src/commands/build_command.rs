//! A module's build command: where it runs, and what it finds there.

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

/// Where programs lie that a language's own tools put into a module's folder, by their usual names.
#[cfg(not(windows))]
const TOOLS: [&str; 2] = [".venv/bin", "node_modules/.bin"];
#[cfg(windows)]
const TOOLS: [&str; 2] = [".venv/Scripts", "node_modules/.bin"];

/// Tells build tools that `modhost dev` waits: they may make a component that takes less time to make, as long as it does
/// the same.
const DEV_BUILD: (&str, &str) = ("MODHOST_DEV_BUILD", "1");

/// Asks programs for colors that see no terminal, as their output goes past the line that shows how far a build is.
const COLORS: [(&str, &str); 3] = [("CARGO_TERM_COLOR", "always"), ("CLICOLOR_FORCE", "1"), ("FORCE_COLOR", "1")];

/// How long what a build printed is waited for after its end: something it left running may hold its output open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a component is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve.
    Serve,
    /// To be tried by its author, who waits for it.
    Dev,
}

/// How a module is built: its command, and where that runs.
#[derive(Clone, Debug)]
pub(super) struct BuildCommand {
    /// The module.
    module: String,
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
        let name = module.name.to_string();
        Some(Self { module: name, text, folder: folder.to_owned(), own: module.folder.is_some() })
    }

    /// Runs the command, with its output on the terminal, and a line below that as long as it takes. It ends with whoever
    /// started it.
    ///
    /// # Errors
    ///
    /// When it can't be run, and why.
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
            return command.status().await.map_err(unable);
        };
        let ended = attend(command, &progress).await;
        progress.end(ended.as_ref().is_ok_and(ExitStatus::success));
        ended.map_err(unable)
    }

    /// The command, ready to run.
    ///
    /// # Errors
    ///
    /// When its folder isn't there, which nobody would read out of what a shell says.
    fn prepare(&self) -> Result<Command, String> {
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

    /// Whether a program is called by name, in the command itself.
    pub fn calls(&self, program: &str) -> bool {
        self.text.split(|it: char| it.is_whitespace() || ";&|()".contains(it)).any(|word| word == program)
    }

    /// What changes with the tools it is built by: this program, and what is installed in the module's folder.
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

/// Runs a command, whose output is shown above a line.
async fn attend(mut command: Command, progress: &Progress) -> std::io::Result<ExitStatus> {
    for (name, value) in COLORS {
        if env::var_os(name).is_none() && env::var_os("NO_COLOR").is_none() {
            command.env(name, value);
        }
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = async {
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
    let mut said = std::pin::pin!(said);
    tokio::select! {
        status = child.wait() => {
            let _ = tokio::time::timeout(LAST_WORDS, said).await;
            status
        }
        () = &mut said => child.wait().await,
    }
}

fn unable(error: std::io::Error) -> String {
    format!("its build command can't be run: {error}")
}
