//! Runs the attempts in processes of their own, and judges their ends.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use modhost_sandbox::{InForce, SandboxMode};

use crate::attacks::{Attempts, BY_COMPILER, BY_HOST, ON_COMPILER, ON_HOST, Target};

/// The user that the attempts run as once more if this is root.
const NOBODY: u32 = 65534;

/// The exit codes of an attempt: it succeeded, it failed, it couldn't be made.
const SUCCEEDED: u8 = 10;
const FAILED: u8 = 11;
const BROKEN: u8 = 12;

/// An attack that needs root, or a kernel feature, to work even without restrictions.
const NEEDS_PRIVILEGES: &[&str] = &[
    "trace the host",
    "trace another process",
    "read the host's memory",
    "read another process's memory",
    "create a namespace",
    "use an unusual socket",
    "read the host's memory as a file",
    "read the host's environment",
    "list the host's open files",
    "signal the host",
    "signal a thread of the host",
    "signal another process",
];

/// Attacks that only Landlock prevents; signals need its sixth version.
const NEEDS_LANDLOCK: &[&str] = &[
    "write to a file",
    "truncate a file",
    "create a file",
    "create a folder",
    "remove a file",
    "move a file out of its folder",
    "execute another program",
    "signal another process",
];

pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("--nothing") => ExitCode::SUCCESS,
        Some("--wait") => {
            let _ = std::io::stdin().read(&mut [0]);
            ExitCode::SUCCESS
        }
        Some("--attempt") => ExitCode::from(attempt(&args[1..])),
        Some("--report") => report(&args[1..]),
        // What `cargo test` passes, for example `--nocapture`, has no meaning here.
        _ => run(),
    }
}

/// Restricts this process as the arguments say.
fn restrict(process: &str, mode: SandboxMode, folder: &Path) -> Result<InForce, String> {
    let restricted = match process {
        "compiler" => {
            modhost_sandbox::close_inherited_files().map_err(|error| error.to_string())?;
            modhost_sandbox::confine_compiler(mode)
        }
        _ => modhost_sandbox::confine_host(mode, &[&folder.join("data")], Path::new("/proc/self/exe")),
    };
    restricted.map_err(|error| error.to_string())
}

/// Writes what is in force in a restricted process.
fn report(args: &[String]) -> ExitCode {
    match restrict(&args[0], SandboxMode::Auto, Path::new(&args[1])) {
        Ok(in_force) => println!("{in_force}|{}", in_force.missing.join("; ")),
        Err(error) => println!("|{error}"),
    }
    ExitCode::SUCCESS
}

/// Makes one attempt in this process.
fn attempt(args: &[String]) -> u8 {
    let [process, mode, name, folder, parent, port, inherited, memory] = args else { return BROKEN };
    let target = Target {
        folder: folder.into(),
        parent: parent.parse().unwrap(),
        port: port.parse().unwrap(),
        inherited: inherited.parse().unwrap(),
        memory: memory.parse().unwrap(),
    };
    let mode: SandboxMode = mode.parse().unwrap();
    // Without restrictions, the inherited file stays open too.
    if mode != SandboxMode::Off
        && let Err(error) = restrict(process, mode, &target.folder)
    {
        eprintln!("{error}");
        return BROKEN;
    }
    let attempts = [ON_COMPILER, BY_COMPILER, ON_HOST, BY_HOST];
    let of_process = if process == "compiler" { &attempts[..2] } else { &attempts[2..] };
    let Some((_, attempt)) = of_process.iter().copied().flatten().find(|(known, _)| known == name) else {
        return BROKEN;
    };
    match attempt(&target) {
        Ok(()) => SUCCEEDED,
        Err(error) => {
            eprintln!("{error}");
            FAILED
        }
    }
}

/// The test as seen by the attempts.
struct Test {
    program: std::path::PathBuf,
    folder: tempfile::TempDir,
    listener: TcpListener,
    inherited: File,
    user: Option<u32>,
    failures: Vec<String>,
}

fn run() -> ExitCode {
    // SAFETY: the call takes no arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        eprintln!("SKIPPED: not root, so the change of the user is not tested");
    }
    let users = if is_root { &[None, Some(NOBODY)][..] } else { &[None] };
    let failures: Vec<_> = users.iter().flat_map(|user| Test::new(*user).run(is_root && user.is_none())).collect();
    for failure in &failures {
        eprintln!("FAILED: {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Test {
    fn new(user: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let all = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        all(folder.path());
        fs::create_dir(folder.path().join("data")).unwrap();
        all(&folder.path().join("data"));
        // The other user may not be able to reach the program at its own place.
        let program = folder.path().join("program");
        fs::copy("/proc/self/exe", &program).unwrap();
        all(&program);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inherited = File::open("/etc/passwd").unwrap();
        // SAFETY: the call takes numbers only. Without the flag, child processes inherit the file.
        assert_eq!(unsafe { libc::fcntl(inherited.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        Self { program, folder, listener, inherited, user, failures: Vec::new() }
    }

    fn run(mut self, is_root: bool) -> Vec<String> {
        let target = self.target();
        let address = SocketAddr::from_abstract_name(target.abstract_name()).unwrap();
        let _local = UnixListener::bind_addr(&address).unwrap();
        for (process, attacks, work) in [("compiler", ON_COMPILER, BY_COMPILER), ("host", ON_HOST, BY_HOST)] {
            let in_force = self.in_force(process);
            eprintln!("{process} as {}: {in_force}", if is_root { "root" } else { "a user" });
            let has_landlock = in_force.contains("Landlock");
            if !has_landlock {
                eprintln!(
                    "SKIPPED: the kernel has no Landlock, so what only it prevents in the {process} is not tested"
                );
            }
            if !in_force.contains("seccomp") {
                self.failures.push(format!("{process}: no seccomp, but every supported kernel has it: {in_force}"));
                continue;
            }
            if process == "compiler" && is_root != in_force.contains("uid 65530") {
                self.failures.push(format!("{process}: wrong user: {in_force}"));
            }
            self.attack(process, attacks, is_root, has_landlock);
            self.work(process, work);
        }
        self.failures
    }

    fn attack(&mut self, process: &str, attacks: Attempts, is_root: bool, has_landlock: bool) {
        for (name, _) in attacks {
            let needs = |list: &[&str]| list.contains(name);
            let (unrestricted, _) = self.make(process, SandboxMode::Off, name);
            if unrestricted.code() != Some(SUCCEEDED.into()) && (is_root || !needs(NEEDS_PRIVILEGES)) {
                self.failures.push(format!("{process}: \"{name}\" does not work without restrictions: {unrestricted}"));
            }
            if process == "host" && needs(NEEDS_LANDLOCK) && !has_landlock {
                continue;
            }
            let (ended, stderr) = self.make(process, SandboxMode::Auto, name);
            let is_denied = ended.code() == Some(FAILED.into()) || ended.signal() == Some(libc::SIGSYS);
            if !is_denied {
                self.failures.push(format!("{process}: \"{name}\" was not prevented: {ended} {stderr}"));
            }
        }
    }

    fn work(&mut self, process: &str, work: Attempts) {
        for (name, _) in work {
            let (ended, stderr) = self.make(process, SandboxMode::Auto, name);
            if ended.code() != Some(SUCCEEDED.into()) {
                self.failures.push(format!("{process}: cannot {name}: {ended} {stderr}"));
            }
        }
    }

    /// What is in force in a restricted process.
    fn in_force(&self, process: &str) -> String {
        let output = self.command().args(["--report", process]).arg(self.folder.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes an attempt, and returns how its process ended and its standard error.
    fn make(&self, process: &str, mode: SandboxMode, name: &str) -> (ExitStatus, String) {
        let target = self.target();
        fs::write(target.file(), b"content").unwrap();
        fs::set_permissions(target.file(), Permissions::from_mode(0o666)).unwrap();
        for left in ["new", "folder", "outside"].map(|name| self.folder.path().join(name)) {
            let _ = if left.is_dir() { fs::remove_dir(left) } else { fs::remove_file(left) };
        }
        let mut command = self.command();
        command.args(["--attempt", process, mode.name(), name]).arg(&target.folder).args(
            [target.parent as usize, target.port.into(), target.inherited as usize, target.memory]
                .map(|it| it.to_string()),
        );
        let output = command.output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn target(&self) -> Target {
        Target {
            folder: self.folder.path().to_owned(),
            parent: std::process::id() as libc::pid_t,
            port: self.listener.local_addr().unwrap().port(),
            inherited: self.inherited.as_raw_fd(),
            memory: std::ptr::from_ref(self) as usize,
        }
    }
}
