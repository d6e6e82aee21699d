//! Watches files for changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};

use modhost_core::files::{self, BlockedOperation, FileOpError};
use modhost_core::sync::lock;

/// The polling interval. Some file systems send no notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The pause after a scan that found no change. A log file next to a watched file causes a notification per line, and a
/// scan for each would waste CPU time.
const IDLE_PAUSE: Duration = Duration::from_millis(20);

/// How long a file must stay unchanged to count as completely written.
const QUIET_PERIOD: Duration = Duration::from_millis(60);

/// The maximum time that changed files wait for others that are still being written; those are reported later. It is
/// long enough for files that are written together, and bounds the delay if somebody writes to one file continuously.
const MAX_SETTLE_WAIT: Duration = Duration::from_millis(500);

/// The time limit of a scan. A file whose file system doesn't answer in time is skipped until it has answered.
const SCAN_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches files, whether or not they exist, for any change to them or to their folders: writes, replacement, deletion,
/// changed links. Files are scanned off the runtime, and a file system that doesn't answer delays only its own files.
///
/// A notification of the system only triggers a scan. A change is reported if the file's [`Stamp`] differs.
pub struct FileWatch {
    changes: mpsc::Receiver<BTreeSet<PathBuf>>,
    control: Arc<Control>,
}

struct Control {
    list: Box<dyn Fn() -> BTreeSet<PathBuf> + Send + Sync>,
    scan_requested: Notify,
    /// Files that were renamed into place and not written since.
    renamed: Mutex<BTreeSet<PathBuf>>,
    notifications: Mutex<Option<Notifications>>,
}

/// The metadata by which a change of a file is detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    identity: Identity,
}

/// The identity of a file and the time of its last status change. It detects a replacement with the same length and
/// modification time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

type Stamps = BTreeMap<PathBuf, Stamp>;

impl FileWatch {
    /// Starts watching the files that `list` returns; `list` is called for each scan. Every change after this function
    /// returns is reported. Dropping the watch ends it.
    pub fn new(list: impl Fn() -> BTreeSet<PathBuf> + Send + Sync + 'static) -> Self {
        let (report, changes) = mpsc::channel(1);
        let control = Arc::new(Control {
            list: Box::new(list),
            scan_requested: Notify::new(),
            renamed: Mutex::default(),
            notifications: Mutex::default(),
        });
        let first = control.clone();
        let known = files::blocking_with_timeout(SCAN_TIMEOUT, move || stamps(&(first.list)())).unwrap_or_default();
        tokio::spawn(watch(control.clone(), known, report));
        Self { changes, control }
    }

    /// Triggers a scan, for example because the list has changed.
    pub fn scan_now(&self) {
        self.control.scan_requested.notify_one();
    }

    /// Waits for the next change and returns the changed files.
    pub async fn changed(&mut self) -> BTreeSet<PathBuf> {
        match self.changes.recv().await {
            Some(files) => files,
            // The task ends only when this receiver is dropped.
            None => std::future::pending().await,
        }
    }

    /// Whether a file was renamed into place and not written since, according to the system's notifications. Such a
    /// file is complete.
    pub fn was_renamed_into_place(&self, file: &Path) -> bool {
        lock(&self.control.renamed).contains(&absolute(file))
    }
}

async fn watch(control: Arc<Control>, mut known: Stamps, report: mpsc::Sender<BTreeSet<PathBuf>>) {
    let mut scanner = Scanner { control: control.clone(), stuck: Vec::new() };
    // The first scan subscribes to notifications of the folders. The next one finds changes made before that.
    scanner.scan(&known).await;
    control.scan_requested.notify_one();
    loop {
        tokio::select! {
            () = report.closed() => return,
            () = control.scan_requested.notified() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
        if scanner.scan(&known).await == known {
            tokio::time::sleep(IDLE_PAUSE).await;
            continue;
        }
        let (settled, unsettled) = settle(&mut scanner, &known).await;
        let all: BTreeSet<PathBuf> = known.keys().chain(settled.keys()).cloned().collect();
        let changed: BTreeSet<PathBuf> =
            all.into_iter().filter(|file| !unsettled.contains(file) && known.get(file) != settled.get(file)).collect();
        for file in &changed {
            match settled.get(file) {
                Some(stamp) => known.insert(file.clone(), stamp.clone()),
                None => known.remove(file),
            };
        }
        if !changed.is_empty() && report.send(changed).await.is_err() {
            return;
        }
        if !unsettled.is_empty() {
            control.scan_requested.notify_one();
        }
    }
}

/// Waits until the files stay unchanged, at most [`MAX_SETTLE_WAIT`]. Returns their stamps, and the files that are
/// still being written.
async fn settle(scanner: &mut Scanner, known: &Stamps) -> (Stamps, BTreeSet<PathBuf>) {
    let started = tokio::time::Instant::now();
    let mut before = scanner.scan(known).await;
    loop {
        tokio::time::sleep(QUIET_PERIOD).await;
        let now = scanner.scan(known).await;
        let all = before.keys().chain(now.keys());
        let unsettled: BTreeSet<PathBuf> = all.filter(|file| before.get(*file) != now.get(*file)).cloned().collect();
        if unsettled.is_empty() || started.elapsed() > MAX_SETTLE_WAIT {
            return (now, unsettled);
        }
        before = now;
    }
}

/// Reads the stamps of files, off the runtime.
struct Scanner {
    control: Arc<Control>,
    /// Scans that timed out and still wait for their file system.
    stuck: Vec<BlockedOperation>,
}

impl Scanner {
    /// Returns the stamps of the files. Files whose file system doesn't answer keep their known stamps.
    async fn scan(&mut self, known: &Stamps) -> Stamps {
        loop {
            self.stuck.retain(|blocked| !blocked.has_ended());
            // It is unknown which file blocks, so no file can be skipped.
            if self.stuck.iter().any(|blocked| blocked.file.is_none()) {
                return known.clone();
            }
            let skipped: Vec<PathBuf> = self.stuck.iter().filter_map(|blocked| blocked.file.clone()).collect();
            let is_skipped = {
                let skipped = skipped.clone();
                move |file: &Path| skipped.iter().any(|it| it == file || Some(it.as_path()) == file.parent())
            };
            let (control, is_out) = (self.control.clone(), is_skipped.clone());
            let scan = files::off_runtime(SCAN_TIMEOUT, move || {
                let mut files = (control.list)();
                files.retain(|file| !is_out(file));
                control.follow(&files);
                stamps(&files)
            });
            match scan.await {
                Ok(mut stamps) => {
                    let unknown = known.iter().filter(|(file, _)| is_skipped(file));
                    stamps.extend(unknown.map(|(file, stamp)| (file.clone(), stamp.clone())));
                    return stamps;
                }
                Err(FileOpError::TimedOut(blocked)) => {
                    let file = blocked.file.as_deref().unwrap_or(Path::new("?")).display();
                    tracing::warn!(%file, "cannot watch the file: its file system does not answer");
                    self.stuck.push(blocked);
                }
                Err(_) => return known.clone(),
            }
        }
    }
}

impl Control {
    /// Subscribes to notifications of the files' folders, unless an earlier call still blocks.
    fn follow(self: &Arc<Self>, files: &BTreeSet<PathBuf>) {
        if let Ok(mut notifications) = self.notifications.try_lock() {
            notifications.get_or_insert_with(|| Notifications::new(self)).follow(files);
        }
    }

    /// Records which files were renamed into place, as far as the system reports it.
    fn note(&self, event: &notify::Event) {
        let mut renamed = lock(&self.renamed);
        for (index, path) in event.paths.iter().enumerate() {
            let is_renamed = match event.kind {
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => true,
                EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => index == 1,
                // A changed owner, mode or timestamp doesn't make the file incomplete.
                EventKind::Modify(ModifyKind::Metadata(_)) => continue,
                _ => false,
            };
            match is_renamed {
                true => renamed.insert(absolute(path)),
                false => renamed.remove(&absolute(path)),
            };
        }
        // Most of these files aren't watched.
        if renamed.len() > MAX_RENAMED {
            renamed.clear();
        }
    }
}

/// The maximum number of remembered files that were renamed into place.
const MAX_RENAMED: usize = 4096;

/// Returns an absolute path, as notifications contain it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns the stamps of the files that exist.
pub fn stamps(files: &BTreeSet<PathBuf>) -> Stamps {
    files.iter().filter_map(|file| Some((file.clone(), stamp(file)?))).collect()
}

/// Returns the stamp of a file, if it exists.
pub fn stamp(file: &Path) -> Option<Stamp> {
    files::record_path(file);
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

/// Returns the device and inode of the folder at a path.
fn folder(path: &Path) -> Option<(u64, u64)> {
    files::record_path(path);
    let identity = identity(&fs::metadata(path).ok()?);
    Some((identity.device, identity.inode))
}

/// The subscription to the system's notifications, if the system has them.
struct Notifications {
    watcher: Option<notify::RecommendedWatcher>,
    /// The watched folders with their device and inode: another folder may have been moved to the same path.
    folders: BTreeMap<PathBuf, (u64, u64)>,
}

impl Notifications {
    fn new(control: &Arc<Control>) -> Self {
        let control = Arc::downgrade(control);
        let on_notification = move |notification: notify::Result<notify::Event>| {
            // A scan causes access events, which must not trigger another scan.
            if notification.as_ref().is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            if let Some(control) = control.upgrade() {
                if let Ok(event) = &notification {
                    control.note(event);
                }
                control.scan_requested.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(on_notification)
            .inspect_err(
                |error| tracing::debug!(%error, interval = ?POLL_INTERVAL, "file notifications are unavailable; polling"),
            )
            .ok();
        Self { watcher, folders: BTreeMap::new() }
    }

    /// Watches the folders of the files. A folder that doesn't exist yet is tried again at the next scan.
    fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        // The folder of a bare file name is the working directory.
        let parent = |file: &PathBuf| match file.parent()? {
            here if here.as_os_str().is_empty() => Some(PathBuf::from(".")),
            folder => Some(folder.to_owned()),
        };
        let wanted: BTreeSet<PathBuf> = files.iter().filter_map(parent).collect();
        let now: BTreeMap<PathBuf, (u64, u64)> =
            wanted.into_iter().filter_map(|path| folder(&path).map(|which| (path, which))).collect();
        for (path, which) in &self.folders {
            if now.get(path) != Some(which) {
                // Fails for a folder that was deleted, which has no watch any more.
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

    /// Uses a runtime with one worker, so that a blocking scan would block everything.
    #[tokio::test]
    async fn unresponsive_file_system_does_not_block_the_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let (calls, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (released, watched) = (Mutex::new(released), file.clone());
        let (called, is_hanging) = (calls.clone(), hangs.clone());
        let mut watch = FileWatch::new(move || {
            if called.fetch_add(1, Ordering::SeqCst) == 1 {
                is_hanging.store(true, Ordering::SeqCst);
                let _ = lock(&released).recv_timeout(SCAN_TIMEOUT / 2);
                is_hanging.store(false, Ordering::SeqCst);
            }
            BTreeSet::from([watched.clone()])
        });
        while calls.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(IDLE_PAUSE).await;
        }
        tokio::time::sleep(IDLE_PAUSE).await;
        assert!(hangs.load(Ordering::SeqCst), "the runtime was blocked until the file system answered");
        release.send(()).unwrap();
        fs::write(&file, "new").unwrap();
        assert_eq!(watch.changed().await, BTreeSet::from([file]));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn distinguishes_renamed_files_from_written_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (file, new) = (folder.path().join("file"), folder.path().join("new"));
        let watched = file.clone();
        let mut watch = FileWatch::new(move || BTreeSet::from([watched.clone()]));
        fs::write(&file, "1").unwrap();
        watch.changed().await;
        assert!(!watch.was_renamed_into_place(&file));
        fs::write(&new, "22").unwrap();
        fs::rename(&new, &file).unwrap();
        watch.changed().await;
        assert!(watch.was_renamed_into_place(&file));
        fs::write(&file, "333").unwrap();
        watch.changed().await;
        assert!(!watch.was_renamed_into_place(&file));
    }
}
