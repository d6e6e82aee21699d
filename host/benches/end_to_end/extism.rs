//! The same work as a plug-in of Extism's, in a process of its own: its library comes with Wasmtime inside, another one
//! than the host's.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

/// What its guest is compiled to: core WebAssembly, as Extism takes it.
const TARGET: &str = "wasm32-wasip1";

/// A plug-in that is called when it is told to; ended when dropped.
pub struct Extism {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Where Extism's library is, if the virtual environment that `BENCH_VENV` names has it.
pub fn library() -> Option<PathBuf> {
    let python = fs::read_dir(Path::new(&std::env::var_os("BENCH_VENV")?).join("lib")).ok()?;
    let folders = python.flatten().map(|version| version.path().join("site-packages/extism_sys"));
    folders.into_iter().find(|folder| folder.join("libextism_sys.so").is_file())
}

/// Builds the plug-in and what runs it; answers with the folder they are in.
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
    ensure!(runner.success(), "what runs Extism's guest can't be built");
    Ok(target)
}

fn prefixed(flag: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(flag);
    argument.push(path);
    argument
}

impl Extism {
    /// Starts it with an event.
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

    /// Has the event handled again and again for so long; answers with the time that one takes.
    pub fn round(&mut self, time: Duration) -> anyhow::Result<Duration> {
        writeln!(self.input, "{}", time.as_millis())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let nanoseconds = line.trim().parse().context("Extism's process has ended; it said why")?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Extism {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
