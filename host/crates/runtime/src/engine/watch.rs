//! Notices that files changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};

use modhost_core::files::{self, Pending, Unanswered};
use modhost_core::sync::lock;

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

/// How long the system may take to say how files are; one that takes longer is left out until the system has answered.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches files, whether or not they exist, and whatever is done to them or to the folders they are in: written,
/// replaced, deleted, re-linked. The system is asked off the runtime; a file system that doesn't answer keeps nobody waiting
/// but for its own files.
///
/// The system's notification is only a reason to look; what counts is that a file is another than it was.
pub struct FileWatch {
    changes: mpsc::Receiver<BTreeSet<PathBuf>>,
    control: Arc<Control>,
}

struct Control {
    list: Box<dyn Fn() -> BTreeSet<PathBuf> + Send + Sync>,
    look: Notify,
    /// Files that were moved to their place, and not written since.
    moved: Mutex<BTreeSet<PathBuf>>,
    signs: Mutex<Option<Signs>>,
}

/// What tells a file from the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
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

type Stamps = BTreeMap<PathBuf, Stamp>;

impl FileWatch {
    /// Begins to watch the files that `list` names each time it is asked: what changes after this returns is reported.
    /// It ends when it is dropped.
    pub fn new(list: impl Fn() -> BTreeSet<PathBuf> + Send + Sync + 'static) -> Self {
        let (report, changes) = mpsc::channel(1);
        let control = Arc::new(Control {
            list: Box::new(list),
            look: Notify::new(),
            moved: Mutex::default(),
            signs: Mutex::default(),
        });
        let first = control.clone();
        let known = files::within(LOOK_TIMEOUT, move || stamps(&(first.list)())).unwrap_or_default();
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

    /// Whether the system said that a file was moved to its place, and has not been written there since: then it is whole.
    pub fn was_moved_in(&self, file: &Path) -> bool {
        lock(&self.control.moved).contains(&plain(file))
    }
}

async fn watch(control: Arc<Control>, mut known: Stamps, report: mpsc::Sender<BTreeSet<PathBuf>>) {
    let mut looker = Scanner { control: control.clone(), stuck: Vec::new() };
    // Listens to their folders; what changed before that is seen at the next look.
    looker.look(&known).await;
    control.look.notify_one();
    loop {
        tokio::select! {
            () = report.closed() => return,
            () = control.look.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if looker.look(&known).await == known {
            tokio::time::sleep(REST).await;
            continue;
        }
        let (settled, moving) = settle(&mut looker, &known).await;
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
async fn settle(looker: &mut Scanner, known: &Stamps) -> (Stamps, BTreeSet<PathBuf>) {
    let started = tokio::time::Instant::now();
    let mut before = looker.look(known).await;
    loop {
        tokio::time::sleep(SETTLED).await;
        let now = looker.look(known).await;
        let all = before.keys().chain(now.keys());
        let moving: BTreeSet<PathBuf> = all.filter(|file| before.get(*file) != now.get(*file)).cloned().collect();
        if moving.is_empty() || started.elapsed() > PATIENCE {
            return (now, moving);
        }
        before = now;
    }
}

/// Asks the system how files are, off the runtime.
struct Scanner {
    control: Arc<Control>,
    /// What the system doesn't answer to.
    stuck: Vec<Pending>,
}

impl Scanner {
    /// How the files are. Of those the system says nothing of, they are as they were known.
    async fn look(&mut self, known: &Stamps) -> Stamps {
        loop {
            self.stuck.retain(|pending| !pending.is_over());
            // It hangs where the files are named: nothing can be left out.
            if self.stuck.iter().any(|pending| pending.file.is_none()) {
                return known.clone();
            }
            let left_out: Vec<PathBuf> = self.stuck.iter().filter_map(|pending| pending.file.clone()).collect();
            let is_left_out = {
                let left_out = left_out.clone();
                move |file: &Path| left_out.iter().any(|it| it == file || Some(it.as_path()) == file.parent())
            };
            let (control, is_out) = (self.control.clone(), is_left_out.clone());
            let looked = files::off_runtime(LOOK_TIMEOUT, move || {
                let mut files = (control.list)();
                files.retain(|file| !is_out(file));
                control.follow(&files);
                stamps(&files)
            });
            match looked.await {
                Ok(mut stamps) => {
                    let unknown = known.iter().filter(|(file, _)| is_left_out(file));
                    stamps.extend(unknown.map(|(file, stamp)| (file.clone(), stamp.clone())));
                    return stamps;
                }
                Err(Unanswered::TimedOut(pending)) => {
                    let file = pending.file.as_deref().unwrap_or(Path::new("?")).display();
                    tracing::warn!(%file, "cannot watch the file: its file system does not answer");
                    self.stuck.push(pending);
                }
                Err(_) => return known.clone(),
            }
        }
    }
}

impl Control {
    /// Listens to the folders of these files, unless the system still doesn't answer to that.
    fn follow(self: &Arc<Self>, files: &BTreeSet<PathBuf>) {
        if let Ok(mut signs) = self.signs.try_lock() {
            signs.get_or_insert_with(|| Signs::new(self)).follow(files);
        }
    }

    /// Notes which files are moved to their place, as far as the system says so.
    fn note(&self, event: &notify::Event) {
        let mut moved = lock(&self.moved);
        for (index, path) in event.paths.iter().enumerate() {
            let is_moved = match event.kind {
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => true,
                EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => index == 1,
                // Another name, owner or mode makes it no less whole.
                EventKind::Modify(ModifyKind::Metadata(_)) => continue,
                _ => false,
            };
            match is_moved {
                true => moved.insert(plain(path)),
                false => moved.remove(&plain(path)),
            };
        }
        // Only a few of these files are ours.
        if moved.len() > MAX_MOVED {
            moved.clear();
        }
    }
}

/// How many files are remembered that were moved to their place.
const MAX_MOVED: usize = 4096;

/// A path from the root, as the system names files.
fn plain(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The stamps of those files that are there.
pub fn stamps(files: &BTreeSet<PathBuf>) -> Stamps {
    files.iter().filter_map(|file| Some((file.clone(), stamp(file)?))).collect()
}

/// The stamp of a file, if it is there.
pub fn stamp(file: &Path) -> Option<Stamp> {
    files::note(file);
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
    files::note(path);
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
            if sign.as_ref().is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            if let Some(control) = control.upgrade() {
                if let Ok(event) = &sign {
                    control.note(event);
                }
                control.look.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(look)
            .inspect_err(
                |error| tracing::debug!(%error, interval = ?LOOK_EVERY, "file notifications are unavailable; polling"),
            )
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// A runtime with one worker: whoever blocks it blocks all.
    #[tokio::test]
    async fn a_file_system_that_does_not_answer_holds_up_no_worker() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let (calls, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (released, watched) = (Mutex::new(released), file.clone());
        let (called, is_hanging) = (calls.clone(), hangs.clone());
        let mut watch = FileWatch::new(move || {
            if called.fetch_add(1, Ordering::SeqCst) == 1 {
                is_hanging.store(true, Ordering::SeqCst);
                let _ = lock(&released).recv_timeout(LOOK_TIMEOUT / 2);
                is_hanging.store(false, Ordering::SeqCst);
            }
            BTreeSet::from([watched.clone()])
        });
        while calls.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(REST).await;
        }
        tokio::time::sleep(REST).await;
        assert!(hangs.load(Ordering::SeqCst), "the runtime went on only when the file system had answered");
        release.send(()).unwrap();
        fs::write(&file, "new").unwrap();
        assert_eq!(watch.changed().await, BTreeSet::from([file]));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn tells_what_was_moved_from_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, new) = (folder.path().join("file"), folder.path().join("new"));
        let watched = file.clone();
        let mut watch = FileWatch::new(move || BTreeSet::from([watched.clone()]));
        fs::write(&file, "1").unwrap();
        watch.changed().await;
        assert!(!watch.was_moved_in(&file));
        fs::write(&new, "22").unwrap();
        fs::rename(&new, &file).unwrap();
        watch.changed().await;
        assert!(watch.was_moved_in(&file));
        fs::write(&file, "333").unwrap();
        watch.changed().await;
        assert!(!watch.was_moved_in(&file));
    }
}
