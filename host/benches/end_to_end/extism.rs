//! The same work as an Extism plug-in, in a process of its own: Extism's library contains another version of Wasmtime
//! than the host.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

/// The target of its guest: core WebAssembly, as Extism requires.
const TARGET: &str = "wasm32-wasip1";

/// A process that runs the plug-in on request; killed when dropped.
pub struct Extism {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Returns the path of Extism's library, if the virtual environment named by `BENCH_VENV` has it.
pub fn library() -> Option<PathBuf> {
    let python = fs::read_dir(Path::new(&std::env::var_os("BENCH_VENV")?).join("lib")).ok()?;
    let folders = python.flatten().map(|version| version.path().join("site-packages/extism_sys"));
    folders.into_iter().find(|folder| folder.join("libextism_sys.so").is_file())
}

/// Builds the plug-in and its runner; returns the folder that contains them.
pub fn build(library: &Path) -> anyhow::Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/extism");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/extism");
    fs::create_dir_all(&target)?;
    let guest = Command::new(env!("CARGO"))
        .current_dir(sources.join("guest"))
        .args(["build", "--quiet", "--release", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .status()?;
    ensure!(guest.success(), "Extism's guest can't be built; is the target there? rustup target add {TARGET}");
    let runner = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(target.join("beside"))
        .arg(sources.join("beside.c"))
        .args([prefixed("-L", library), "-lextism_sys".into(), prefixed("-Wl,-rpath,", library)])
        .status()
        .context("cc")?;
    ensure!(runner.success(), "cannot build the runner of Extism's guest");
    Ok(target)
}

fn prefixed(flag: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(flag);
    argument.push(path);
    argument
}

impl Extism {
    /// Starts the runner with an event.
    pub fn start(built: &Path, event: &[u8]) -> anyhow::Result<Self> {
        let file = built.join("event.json");
        fs::write(&file, event)?;
        let guest = built.join(TARGET).join("release/extism_bench_guest.wasm");
        let mut process = Command::new(built.join("beside"))
            .args([&guest, &file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("no pipe to Extism's process")?;
        let output = process.stdout.take().context("no pipe from Extism's process")?;
        Ok(Self { process, input, output: BufReader::new(output) })
    }

    /// Lets the runner handle the event repeatedly for this time; returns the time of one repetition.
    pub fn round(&mut self, time: Duration) -> anyhow::Result<Duration> {
        writeln!(self.input, "{}", time.as_millis())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let nanoseconds = line.trim().parse().context("Extism's process has exited; see its output")?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Extism {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
