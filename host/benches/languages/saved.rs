//! Measures the time from saving a source to serving it, in `modhost dev`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::figures::median;

/// The number of measured saves; one save before them warms up.
const SAVES: usize = 5;
/// The pause of the author between an answer and the next save.
const PAUSE: Duration = Duration::from_secs(2);
/// The time limit of every wait.
const PATIENCE: Duration = Duration::from_secs(600);
/// A text in every template, which is changed.
const TEXT: &str = "Writing the answer";

/// A `modhost dev` process; killed when dropped.
struct Dev {
    process: Child,
    log: Receiver<String>,
}

/// Returns the median time from saving a source to serving it, in seconds.
pub fn saved(mut modhost: Command, settings: &Path, folder: &Path) -> anyhow::Result<f64> {
    let source = source(folder).context("no source with the text that is changed")?;
    let text = std::fs::read_to_string(&source)?;
    modhost.args(["dev", "--port", "0", "--admin-port", "0", "--platform-port", "0", "--config"]).arg(settings);
    modhost.current_dir(folder).env("MODHOST_LOG", "modhost=debug");
    let mut process = modhost.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let (line, log) = channel();
    let stderr = BufReader::new(process.stderr.take().context("its log")?);
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|it| line.send(it)));
    let dev = Dev { process, log };
    dev.wait_for("modules started")?;
    let mut took = Vec::new();
    for number in 0..=SAVES {
        std::thread::sleep(PAUSE);
        let started = Instant::now();
        std::fs::write(&source, text.replace(TEXT, &format!("{TEXT} ({number})")))?;
        dev.wait_for("new version serves")?;
        took.push(started.elapsed().as_secs_f64());
    }
    took.remove(0);
    Ok(median(took))
}

impl Dev {
    fn wait_for(&self, words: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self
            .log
            .recv_timeout(deadline - Instant::now())
            .with_context(|| format!("no {words:?}"))?
            .contains(words)
        {}
        Ok(())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the file of the module that contains the text.
fn source(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let has_text = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.contains(TEXT));
    let is_own = |folder: &PathBuf| folder.file_name().is_some_and(|name| name == "src");
    files.into_iter().find(has_text).or_else(|| folders.into_iter().filter(is_own).find_map(|folder| source(&folder)))
}
