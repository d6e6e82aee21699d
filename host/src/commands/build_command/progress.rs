//! A progress line on the terminal during a build: the command, the elapsed time, and the time of the previous build.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// How often the line is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// The file of build times, in the user's cache.
const TIMES_FILE: &str = "build-times.json";

/// Maximum number of stored build times.
const MAX_TIMES: usize = 1000;

/// The progress line of one build.
pub(super) struct Progress {
    line: ProgressBar,
    started: Instant,
    times: BuildTimes,
}

impl Progress {
    /// Shows the line, if standard error is a terminal. `build` identifies the build in the stored times.
    pub fn start(module: &str, command: &str, build: String) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let times = BuildTimes::read(build);
        let last = times.last().map(|time| format!(", last time {time:.1} s")).unwrap_or_default();
        // The command is a message and not part of the template, because it may contain braces.
        let style = ProgressStyle::with_template("{spinner} building {prefix}, {elapsed}: {wide_msg}").ok()?;
        let line = ProgressBar::new_spinner().with_style(style).with_prefix(module.to_owned());
        line.set_message(format!("{command}{last}"));
        line.enable_steady_tick(TICK);
        Some(Self { line, started: Instant::now(), times })
    }

    /// Shows the output of a build above the line, until the output ends.
    pub async fn forward(&self, output: impl AsyncRead + Unpin) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while let Ok(1..) = output.read_until(b'\n', &mut line).await {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            self.line.suspend(|| {
                // The build continues if standard error is closed.
                let _ = writeln!(io::stderr(), "{text}");
            });
            line.clear();
        }
    }

    /// Removes the line, and stores the build time if the build succeeded.
    pub fn end(self, succeeded: bool) {
        self.line.finish_and_clear();
        if succeeded {
            self.times.store(self.started.elapsed());
        }
    }
}

/// The stored build times. Errors are ignored, because the times are only shown.
struct BuildTimes {
    file: Option<PathBuf>,
    build: String,
    times: BTreeMap<String, f64>,
}

impl BuildTimes {
    fn read(build: String) -> Self {
        let file = crate::commands::user_cache().map(|folder| folder.join(TIMES_FILE));
        let text = file.as_deref().and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        Self { file, build, times: serde_json::from_slice(&text).unwrap_or_default() }
    }

    fn last(&self) -> Option<f64> {
        self.times.get(&self.build).copied()
    }

    fn store(mut self, time: Duration) {
        self.times.insert(self.build.clone(), time.as_secs_f64());
        while self.times.len() > MAX_TIMES {
            self.times.pop_first();
        }
        if let Some(file) = &self.file {
            let _ = write(file, &self.times);
        }
    }
}

/// Writes the file atomically, because other builds may read it.
fn write(file: &Path, times: &BTreeMap<String, f64>) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut new, times)?;
    new.persist(file)?;
    Ok(())
}
