//! A line on the terminal while a module is built: what is done, for how long by now, and how long it took the last time.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// How often the line changes.
const TICK: Duration = Duration::from_millis(100);

/// Where it is kept how long builds took, in the user's cache.
const TIMES: &str = "build-times.json";

/// How many of them are kept.
const MAX_TIMES: usize = 1000;

/// The line of one build.
pub(super) struct Progress {
    line: ProgressBar,
    started: Instant,
    times: Times,
}

impl Progress {
    /// Shows the line, if standard error is a terminal; `build` names what is built among all that this user builds.
    pub fn start(module: &str, command: &str, build: String) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let times = Times::read(build);
        let last = times.last().map(|time| format!(", last time {time:.1} s")).unwrap_or_default();
        // What a command is made of has no place in a template.
        let style = ProgressStyle::with_template("{spinner} building {prefix}, {elapsed}: {wide_msg}").ok()?;
        let line = ProgressBar::new_spinner().with_style(style).with_prefix(module.to_owned());
        line.set_message(format!("{command}{last}"));
        line.enable_steady_tick(TICK);
        Some(Self { line, started: Instant::now(), times })
    }

    /// Shows above the line what a build prints, until it has ended.
    pub async fn forward(&self, output: impl AsyncRead + Unpin) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while let Ok(1..) = output.read_until(b'\n', &mut line).await {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            self.line.suspend(|| {
                // Whoever reads it may be gone, and the build goes on.
                let _ = writeln!(io::stderr(), "{text}");
            });
            line.clear();
        }
    }

    /// Takes the line away, and remembers how long it took if the build made something.
    pub fn end(self, built: bool) {
        self.line.finish_and_clear();
        if built {
            self.times.remember(self.started.elapsed());
        }
    }
}

/// How long builds took. Of no more use than the line itself: what can't be read or written is left out.
struct Times {
    file: Option<PathBuf>,
    build: String,
    times: BTreeMap<String, f64>,
}

impl Times {
    fn read(build: String) -> Self {
        let file = crate::commands::user_cache().map(|folder| folder.join(TIMES));
        let text = file.as_deref().and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        Self { file, build, times: serde_json::from_slice(&text).unwrap_or_default() }
    }

    fn last(&self) -> Option<f64> {
        self.times.get(&self.build).copied()
    }

    fn remember(mut self, time: Duration) {
        self.times.insert(self.build.clone(), time.as_secs_f64());
        while self.times.len() > MAX_TIMES {
            self.times.pop_first();
        }
        if let Some(file) = &self.file {
            let _ = write(file, &self.times);
        }
    }
}

/// Writes the file in one go, as other builds may read it.
fn write(file: &Path, times: &BTreeMap<String, f64>) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut new, times)?;
    new.persist(file)?;
    Ok(())
}
