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

/// How long the other files wait for one that doesn't settle; it is reported when it has. Files that belong together are
/// there within this time; and who goes on writing into one for ever doesn't keep those of others waiting for longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Watches files, whether or not they exist, and whatever is done to them or to the folders they are in: written,
/// replaced, deleted, re-linked.
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
    identity: Identity,
}

/// What the system tells a file from others by, and when it last changed: a tool may keep the length and the time of
/// modification of the file before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
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
        let (settled, moving) = settle(&control).await;
        let all: BTreeSet<PathBuf> = known.keys().chain(settled.keys()).cloned().collect();
        let changed: BTreeSet<PathBuf> =
            all.into_iter().filter(|file| !moving.contains(file) && known.get(file) != settled.get(file)).collect();
        for file in &changed {
            match settled.get(file) {
                Some(stamp) => known.insert(file.clone(), stamp.clone()),
                None => known.remove(file),
            };
        }
        if !changed.is_empty() && report.send(changed).await.is_err() {
            return;
        }
        if !moving.is_empty() {
            control.look.notify_one();
        }
    }
}

/// Waits until the files stay as they are, but not for ever: answers with how they are, and which are still being written.
async fn settle(control: &Control) -> (BTreeMap<PathBuf, Stamp>, BTreeSet<PathBuf>) {
    let started = tokio::time::Instant::now();
    let mut before = stamps(&(control.list)());
    loop {
        tokio::time::sleep(SETTLED).await;
        let now = stamps(&(control.list)());
        let all = before.keys().chain(now.keys());
        let moving: BTreeSet<PathBuf> = all.filter(|file| before.get(*file) != now.get(*file)).cloned().collect();
        if moving.is_empty() || started.elapsed() > PATIENCE {
            return (now, moving);
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
    Some(Stamp { modified: metadata.modified().ok(), length: metadata.len(), identity: identity(&metadata) })
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;

    Identity { device: metadata.dev(), inode: metadata.ino(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Identity {
    Identity::default()
}

/// Which folder stands at a path; its content doesn't matter.
fn folder(path: &Path) -> Option<(u64, u64)> {
    let identity = identity(&fs::metadata(path).ok()?);
    Some((identity.device, identity.inode))
}

/// The system's notifications, where it has some.
struct Signs {
    watcher: Option<notify::RecommendedWatcher>,
    /// The folders listened to, each with which one it was then: another may have taken its name.
    folders: BTreeMap<PathBuf, (u64, u64)>,
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
        Self { watcher, folders: BTreeMap::new() }
    }

    /// Listens to the folders the files are in; one that doesn't exist yet is tried again at the next look.
    fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        // The folder of a bare name is the one this process is in.
        let parent = |file: &PathBuf| match file.parent()? {
            here if here.as_os_str().is_empty() => Some(PathBuf::from(".")),
            folder => Some(folder.to_owned()),
        };
        let wanted: BTreeSet<PathBuf> = files.iter().filter_map(parent).collect();
        let now: BTreeMap<PathBuf, (u64, u64)> =
            wanted.into_iter().filter_map(|path| folder(&path).map(|which| (path, which))).collect();
        for (path, which) in &self.folders {
            if now.get(path) != Some(which) {
                // A folder that is gone has lost its watch already.
                let _ = watcher.unwatch(path);
            }
        }
        let known = std::mem::take(&mut self.folders);
        self.folders = now
            .into_iter()
            .filter(|(path, which)| {
                known.get(path) == Some(which) || watcher.watch(path, RecursiveMode::NonRecursive).is_ok()
            })
            .collect();
    }
}
