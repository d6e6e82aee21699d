//! Reading files that somebody else writes: regular files only, no more of them than fits their purpose, and off the
//! runtime with a time limit. A FIFO, a device or a network file system that doesn't answer holds up nobody but its reader.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock;

/// How long reading the settings, or whatever they refer to, may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How many threads may wait for a file system that doesn't answer. Beyond that nothing more is read until one returns.
const MAX_ABANDONED: usize = 8;

/// How many threads wait for a file system, and nobody waits for them any more.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// What kind of thing is no regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRegular {
    /// A folder.
    Folder,
    /// A pipe, a socket or a device.
    Special,
}

/// Why a file can't be read.
#[derive(Debug)]
pub enum ReadError {
    /// The system says so.
    Io(io::Error),
    /// It is no regular file.
    NotRegular(NotRegular),
    /// It is larger than such a file may be.
    TooLarge {
        /// How large it is, as far as that is known.
        size: u64,
        /// How large it may be.
        max: u64,
    },
}

/// Why work on files has no result.
#[derive(Debug)]
pub enum Unanswered {
    /// It took too long.
    TimedOut(Pending),
    /// Too many reads before it took too long, and still wait for their file system.
    TooMany,
    /// It panicked, or the system gives no thread for it.
    Broken,
}

/// Work that goes on though nobody waits for it any more: the system doesn't answer.
#[derive(Debug)]
pub struct Pending {
    /// The file it was asking for.
    pub file: Option<PathBuf>,
    is_over: Arc<AtomicBool>,
}

impl Pending {
    /// Whether the system has answered at last.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl NotRegular {
    /// What kind of thing a path leads to, if it is there and no regular file.
    pub fn at(path: &Path) -> Option<Self> {
        Self::of(&std::fs::metadata(path).ok()?)
    }

    fn of(metadata: &std::fs::Metadata) -> Option<Self> {
        match metadata {
            it if it.is_file() => None,
            it if it.is_dir() => Some(Self::Folder),
            _ => Some(Self::Special),
        }
    }

    /// The same for people, to follow the file's name.
    pub fn described(self) -> &'static str {
        match self {
            Self::Folder => "is a folder, not a file",
            Self::Special => "is not a regular file, but a pipe, a device or the like",
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ReadError {
    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a regular file of at most `max` bytes. Never waits for a writer, and reads nothing of a file that is too large.
///
/// # Errors
///
/// When it can't be read, is no regular file, or is larger.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    note(path);
    let file = open(path)?;
    let metadata = file.metadata()?;
    if let Some(kind) = NotRegular::of(&metadata) {
        return Err(ReadError::NotRegular(kind));
    }
    if metadata.len() > max {
        return Err(ReadError::TooLarge { size: metadata.len(), max });
    }
    let mut bytes = Vec::new();
    // One byte more: the file may have grown meanwhile, and some don't say how long they are.
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    let size = bytes.len() as u64;
    if size > max { Err(ReadError::TooLarge { size, max }) } else { Ok(bytes) }
}

/// Opens a file; a pipe is opened, too, and not waited for.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    // What `open` says of a socket.
    file.map_err(|error| match error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) {
        true => io::Error::other(NotRegular::Special.described()),
        false => error,
    })
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

thread_local! {
    /// Where the thread notes which file it is reading, if anybody waits for it with a time limit.
    static READING: RefCell<Option<Arc<Mutex<Option<PathBuf>>>>> = const { RefCell::new(None) };
}

/// Notes that this thread is about to ask for a file.
pub fn note(path: &Path) {
    READING.with_borrow(|reading| {
        if let Some(reading) = reading {
            *lock(reading) = Some(path.to_owned());
        }
    });
}

/// Work on a thread of its own that nobody need wait for: neither the runtime nor the end of the process does.
struct Errand {
    reading: Arc<Mutex<Option<PathBuf>>>,
    end: Arc<End>,
}

/// How the work ends.
#[derive(Default)]
struct End {
    /// Set by whoever is first: the thread when it is done, or who waited when that took too long.
    is_settled: AtomicBool,
    /// Set when the thread is done.
    is_over: Arc<AtomicBool>,
}

impl Errand {
    fn start(work: impl FnOnce() + Send + 'static) -> Result<Self, Unanswered> {
        if ABANDONED.load(Ordering::Relaxed) >= MAX_ABANDONED {
            return Err(Unanswered::TooMany);
        }
        let errand = Self { reading: Arc::default(), end: Arc::default() };
        let (reading, end) = (errand.reading.clone(), errand.end.clone());
        let thread = std::thread::Builder::new().name("file reader".into());
        let run = move || {
            READING.set(Some(reading));
            let _ends = Ends(end);
            work();
        };
        thread.spawn(run).map_err(|_| Unanswered::Broken)?;
        Ok(errand)
    }

    /// Gives it up: it took too long.
    fn abandon(self) -> Unanswered {
        ABANDONED.fetch_add(1, Ordering::Relaxed);
        if self.end.is_settled.swap(true, Ordering::AcqRel) {
            ABANDONED.fetch_sub(1, Ordering::Relaxed);
        }
        let file = lock(&self.reading).clone();
        Unanswered::TimedOut(Pending { file, is_over: self.end.is_over.clone() })
    }
}

struct Ends(Arc<End>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        if self.0.is_settled.swap(true, Ordering::AcqRel) {
            ABANDONED.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Does work on files off the runtime.
///
/// # Errors
///
/// When it takes longer than `limit`.
pub async fn off_runtime<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let (done, result) = tokio::sync::oneshot::channel();
    let errand = Errand::start(move || drop(done.send(work())))?;
    match tokio::time::timeout(limit, result).await {
        Ok(result) => result.map_err(|_| Unanswered::Broken),
        Err(_) => Err(errand.abandon()),
    }
}

/// The same for who has no runtime.
///
/// # Errors
///
/// When it takes longer than `limit`.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unanswered> {
    let (done, result) = std::sync::mpsc::sync_channel(1);
    let errand = Errand::start(move || drop(done.send(work())))?;
    match result.recv_timeout(limit) {
        Ok(result) => Ok(result),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(Unanswered::Broken),
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(errand.abandon()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn reads_regular_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kind = |path: &Path| match read(path, 10) {
            Err(ReadError::NotRegular(kind)) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(folder.path()), NotRegular::Folder);
        assert_eq!(kind(Path::new("/dev/zero")), NotRegular::Special);
        // Nobody will ever write into it.
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        assert_eq!(kind(&at("pipe")), NotRegular::Special);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(matches!(read(&at("socket"), 10), Err(ReadError::Io(error)) if error.to_string().contains("regular")));
        assert!(read(&at("nothing"), 10).unwrap_err().is_not_found());
    }

    #[test]
    fn reads_no_more_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"0123456789");
        assert!(matches!(read(&path, 9), Err(ReadError::TooLarge { size: 10, max: 9 })));
        // A file that doesn't say how long it is.
        assert!(matches!(read(Path::new("/proc/self/status"), 9), Err(ReadError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn names_the_file_that_does_not_answer() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let hangs = move || {
            note(Path::new("on/a/share"));
            let _ = released.recv();
        };
        let limit = Duration::from_millis(20);
        let Err(Unanswered::TimedOut(pending)) = off_runtime(limit, hangs).await else { panic!("it answered") };
        assert_eq!(pending.file.as_deref(), Some(Path::new("on/a/share")));
        assert!(!pending.is_over());
        drop(release);
        assert_eq!(off_runtime(READ_TIMEOUT, || 7).await.unwrap(), 7);
        assert_eq!(within(READ_TIMEOUT, || 7).unwrap(), 7);
    }
}
