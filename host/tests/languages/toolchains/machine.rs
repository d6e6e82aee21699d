//! The machine that the tests run on: where programs are looked for, and how they are run.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::super::notice::notice;
use super::{Found, Toolchain};

/// The time limit for setting up one toolchain. A slow network needs a minute or two.
const PATIENCE: Duration = Duration::from_secs(300);

/// The time limit for a program that only prints its version.
const QUESTION: Duration = Duration::from_secs(30);

/// Variables that would make Python, pip and npm ignore the tests' arguments.
const MISLEADING: [&str; 10] = [
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "NODE_ENV",
    "NODE_OPTIONS",
    "npm_config_omit",
    "npm_config_global",
];

/// The handling of a missing toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Install it; if that fails, skip its tests.
    SetUp,
    /// Skip its tests.
    Installed,
    /// Install it; if that fails, its tests fail.
    Required,
}

/// The folders in which tools are looked for and installed.
pub struct Machine {
    /// The root of the repository.
    pub repository: PathBuf,
    /// The folder for installed toolchains.
    pub folder: PathBuf,
    /// The folders of `PATH`.
    pub path: Vec<PathBuf>,
    pub mode: Mode,
    /// The time limit for setting up.
    pub patience: Duration,
    /// Informs the user why the tests take so long.
    pub notice: fn(&str),
}

impl Machine {
    /// The machine the tests run on.
    pub fn this() -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
        let folder = env::var_os("MODHOST_TOOLCHAINS_FOLDER").map(PathBuf::from);
        Self {
            folder: folder.unwrap_or_else(|| repository.join("target/toolchains")),
            repository,
            path: env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect(),
            mode: mode(&env::var("MODHOST_TOOLCHAINS").unwrap_or_default()),
            patience: PATIENCE,
            notice,
        }
    }

    /// Finds a toolchain, and installs it if it is missing.
    pub fn find(&self, toolchain: Toolchain) -> Found {
        match toolchain {
            Toolchain::Python => self.python_tools(),
            Toolchain::JavaScript => self.javascript_tools(),
            Toolchain::Go => self.go_tools(),
            Toolchain::Zig => self.zig_tools(),
        }
    }

    /// The programs with these names in `PATH`, in its order.
    pub fn programs(&self, names: &[&str]) -> Vec<PathBuf> {
        let files = self.path.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
        files.filter(|file| file.is_file()).collect()
    }

    /// The output of a program that should end quickly.
    pub fn ask(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        self.run(program, args, &self.repository, Instant::now() + QUESTION)
    }

    /// Sets something up under a lock that all test processes on this machine share. `set_up` gets the deadline, and
    /// must first check whether another process has done it in the meantime.
    pub fn set_up<T>(
        &self,
        what: &str,
        is_done: impl Fn() -> Option<T>,
        set_up: impl FnOnce(Instant) -> Result<(), String>,
    ) -> Result<T, String> {
        if self.mode == Mode::Installed {
            return Err(format!(
                "{what} is not installed. To have it set up, leave MODHOST_TOOLCHAINS=installed out of the environment"
            ));
        }
        let unable = |error| {
            format!("{} can't be written to: {error}. To set {what} up, let it be written to", self.folder.display())
        };
        fs::create_dir_all(&self.folder).map_err(unable)?;
        let lock = File::create(self.folder.join("lock")).map_err(unable)?;
        let started = Instant::now();
        while lock.try_lock().is_err() {
            if started.elapsed() > self.patience {
                return Err(format!(
                    "another process is setting up toolchains. To set {what} up, wait until that has ended"
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(done) = is_done() {
            return Ok(done);
        }
        (self.notice)(&format!("setting up {what} for the tests, which takes about a minute"));
        let started = Instant::now();
        let done = set_up(started + self.patience)
            .and_then(|()| is_done().ok_or_else(|| "it was installed, but doesn't work".to_owned()));
        let seconds = started.elapsed().as_secs_f64();
        match &done {
            Ok(_) => (self.notice)(&format!("set up {what} in {seconds:.1} s")),
            Err(_) => (self.notice)(&format!("couldn't set up {what} ({seconds:.1} s)")),
        }
        done.map_err(|why| format!("{what} can't be set up: {why}. To try again, run the tests again with a network"))
    }

    /// Runs a program with a deadline; returns its output, or the end of its error output.
    pub fn run(&self, program: &Path, args: &[&str], folder: &Path, until: Instant) -> Result<String, String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let command_line = format!("`{}`", [&*name].iter().chain(args).copied().collect::<Vec<_>>().join(" "));
        let unable = |error| format!("{command_line} can't be run: {error}");
        // Files instead of pipes: a background process of the program could hold a pipe open forever.
        let (out, err) =
            (tempfile::NamedTempFile::new().map_err(unable)?, tempfile::NamedTempFile::new().map_err(unable)?);
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).env("PATH", self.joined_path(program)).stdin(Stdio::null());
        command.stdout(out.reopen().map_err(unable)?).stderr(err.reopen().map_err(unable)?).process_group(0);
        for variable in MISLEADING {
            command.env_remove(variable);
        }
        let mut child = command.spawn().map_err(unable)?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(unable)? {
                break status;
            }
            if Instant::now() > until {
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                return Err(format!("{command_line} timed out"));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = |file: &tempfile::NamedTempFile| {
            String::from_utf8_lossy(&fs::read(file.path()).unwrap_or_default()).into_owned()
        };
        if status.success() {
            return Ok(text(&out));
        }
        let said = text(&err) + &text(&out);
        let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" / ");
        Err(if last.is_empty() {
            format!("{command_line} failed ({status})")
        } else {
            format!("{command_line} failed ({status}): {last}")
        })
    }

    /// `PATH` with the folder of a program first, so that the program starts its own tools.
    fn joined_path(&self, program: &Path) -> OsString {
        let own = program.parent().map(Path::to_owned);
        env::join_paths(own.into_iter().chain(self.path.iter().cloned())).unwrap_or_default()
    }
}

fn mode(value: &str) -> Mode {
    match value {
        "" => Mode::SetUp,
        "installed" => Mode::Installed,
        "required" => Mode::Required,
        other => panic!("MODHOST_TOOLCHAINS={other}: it is `required`, `installed`, or not set"),
    }
}

/// The first two numbers of a version in a text: `go version go1.27.3 linux/amd64` has 1.27.
pub fn version(text: &str) -> Option<(u32, u32)> {
    text.split(|it: char| !(it.is_ascii_digit() || it == '.')).find_map(|word| {
        let mut numbers = word.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}
