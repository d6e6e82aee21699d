//! Notices that files changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};

/// How often files are looked at without any sign from the system: some file systems give none.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long is rested after a look that found nothing: a log written beside a watched file gives a sign with every line,
/// and looking each time takes the processor from the events.
const REST: Duration = Duration::from_millis(20);

/// How long a file has to stay as it is to count as written.
const SETTLED: Duration = Duration::from_millis(60);

/// How long a file that never settles is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Watches files, whether or not they exist, and whatever is done to them: written, replaced, deleted, re-linked.
///
/// The system's notification is only a reason to look; what counts is that a file is another than it was.
pub struct FileWatch {
    changes: mpsc::Receiver<BTreeSet<PathBuf>>,
    control: Arc<Control>,
}

struct Control {
    list: Box<dyn Fn() -> BTreeSet<PathBuf> + Send + Sync>,
    look: Notify,
}

/// What tells a file from the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileWatch {
    /// Begins to watch the files that `list` names each time it is asked: what changes after this returns is reported.
    /// It ends when it is dropped.
    pub fn new(list: impl Fn() -> BTreeSet<PathBuf> + Send + Sync + 'static) -> Self {
        let (report, changes) = mpsc::channel(1);
        let known = stamps(&list());
        let control = Arc::new(Control { list: Box::new(list), look: Notify::new() });
        tokio::spawn(watch(control.clone(), known, report));
        Self { changes, control }
    }

    /// Looks now, say because the list has changed.
    pub fn look(&self) {
        self.control.look.notify_one();
    }

    /// Waits for the next change; answers with the files that are other than they were.
    pub async fn changed(&mut self) -> BTreeSet<PathBuf> {
        match self.changes.recv().await {
            Some(files) => files,
            // The watching task ends only when this does.
            None => std::future::pending().await,
        }
    }
}

async fn watch(control: Arc<Control>, mut known: BTreeMap<PathBuf, Stamp>, report: mpsc::Sender<BTreeSet<PathBuf>>) {
    let mut signs = Signs::new(&control);
    signs.follow(&(control.list)());
    loop {
        tokio::select! {
            () = report.closed() => return,
            () = control.look.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let files = (control.list)();
        signs.follow(&files);
        if stamps(&files) == known {
            tokio::time::sleep(REST).await;
            continue;
        }
        let settled = settle(&control).await;
        let all = known.keys().chain(settled.keys());
        let changed = all.filter(|file| known.get(*file) != settled.get(*file)).cloned().collect();
        known = settled;
        if report.send(changed).await.is_err() {
            return;
        }
    }
}

/// Waits until the files stay as they are.
async fn settle(control: &Control) -> BTreeMap<PathBuf, Stamp> {
    let started = tokio::time::Instant::now();
    let mut before = stamps(&(control.list)());
    loop {
        tokio::time::sleep(SETTLED).await;
        let now = stamps(&(control.list)());
        if now == before || started.elapsed() > PATIENCE {
            return now;
        }
        before = now;
    }
}

/// The stamps of those files that are there.
pub(crate) fn stamps(files: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Stamp> {
    files.iter().filter_map(|file| Some((file.clone(), stamp(file)?))).collect()
}

/// The stamp of a file, if it is there.
pub(crate) fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode: inode(&metadata) })
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// The system's notifications, where it has some.
struct Signs {
    watcher: Option<notify::RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Signs {
    fn new(control: &Arc<Control>) -> Self {
        let control = Arc::downgrade(control);
        let look = move |sign: notify::Result<notify::Event>| {
            // Looking is access too: it must not be a reason to look again.
            if sign.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            if let Some(control) = control.upgrade() {
                control.look.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(look)
            .inspect_err(|error| {
                tracing::debug!("no notification of file changes, looking every {LOOK_EVERY:?}: {error}")
            })
            .ok();
        Self { watcher, folders: BTreeSet::new() }
    }

    /// Listens to the folders the files are in; one that doesn't exist yet is tried again at the next look.
    fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(Path::to_path_buf).collect();
        for folder in self.folders.difference(&wanted) {
            // A folder that is gone has lost its watch already.
            let _ = watcher.unwatch(folder);
        }
        self.folders = wanted
            .into_iter()
            .filter(|folder| {
                let known = self.folders.contains(folder) && folder.exists();
                known || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
            })
            .collect();
    }
}
