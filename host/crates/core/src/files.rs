//! Bounded file reads for files that the host doesn't control: only regular files, only up to a maximum size, and on a
//! separate thread with a time limit. A FIFO, a device or a hanging network file system blocks only the thread that
//! reads it.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock;

/// Time limit for reading the settings or a file that they refer to.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of threads blocked by a file system after their time limit. Further reads are refused until one of
/// them returns.
const MAX_ABANDONED: usize = 8;

/// Number of threads still blocked by a file system after their time limit.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// The kind of a path that is not a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRegular {
    /// A directory.
    Folder,
    /// A pipe, a socket or a device.
    Special,
}

/// The reason a file cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// An I/O error.
    Io(io::Error),
    /// The path is not a regular file.
    NotRegular(NotRegular),
    /// The file is larger than allowed.
    TooLarge {
        /// The size in bytes, or a lower bound if the size is not known.
        size: u64,
        /// The maximum in bytes.
        max: u64,
    },
}

/// The reason a file operation has no result.
#[derive(Debug)]
pub enum FileOpError {
    /// The operation exceeded its time limit.
    TimedOut(BlockedOperation),
    /// Too many earlier operations exceeded their time limit and are still blocked.
    TooMany,
    /// The operation panicked, or the system refused to start a thread.
    Failed,
}

/// A file operation that exceeded its time limit and is still running.
#[derive(Debug)]
pub struct BlockedOperation {
    /// The file that it last accessed.
    pub file: Option<PathBuf>,
    has_ended: Arc<AtomicBool>,
}

impl BlockedOperation {
    /// Returns whether the operation has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}

impl NotRegular {
    /// Returns the kind of a path that exists and is not a regular file; `None` otherwise.
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

    /// Returns a description that follows the file's name in an error message.
    pub fn description(self) -> &'static str {
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
    /// Returns whether the file doesn't exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a regular file of at most `max` bytes. Doesn't wait for the writer of a FIFO, and reads nothing if the file is
/// too large.
///
/// # Errors
///
/// Returns an error if the file cannot be read, is not a regular file, or is larger than `max`.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    record_path(path);
    let file = open(path)?;
    let metadata = file.metadata()?;
    if let Some(kind) = NotRegular::of(&metadata) {
        return Err(ReadError::NotRegular(kind));
    }
    if metadata.len() > max {
        return Err(ReadError::TooLarge { size: metadata.len(), max });
    }
    let mut bytes = Vec::new();
    // Read one byte more than `max`: the file may have grown, and some files report no size.
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    let size = bytes.len() as u64;
    if size > max { Err(ReadError::TooLarge { size, max }) } else { Ok(bytes) }
}

/// Opens a file without waiting for the writer of a FIFO.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    // `open` returns ENXIO for a socket.
    file.map_err(|error| match error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) {
        true => io::Error::other(NotRegular::Special.description()),
        false => error,
    })
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

thread_local! {
    /// The file that this thread is reading, shared with the caller that waits with a time limit.
    static READING: RefCell<Option<Arc<Mutex<Option<PathBuf>>>>> = const { RefCell::new(None) };
}

/// Records the file that this thread is about to access, for [`BlockedOperation::file`].
pub fn record_path(path: &Path) {
    READING.with_borrow(|reading| {
        if let Some(reading) = reading {
            *lock(reading) = Some(path.to_owned());
        }
    });
}

/// A file operation on its own thread. Neither the runtime nor the end of the process waits for it.
struct Operation {
    reading: Arc<Mutex<Option<PathBuf>>>,
    end: Arc<End>,
}

/// The completion state of an operation.
#[derive(Default)]
struct End {
    /// Set by whichever comes first: the thread when it is done, or the waiting caller at the time limit.
    is_settled: AtomicBool,
    /// Set when the thread is done.
    has_ended: Arc<AtomicBool>,
}

impl Operation {
    fn start(work: impl FnOnce() + Send + 'static) -> Result<Self, FileOpError> {
        if ABANDONED.load(Ordering::Relaxed) >= MAX_ABANDONED {
            return Err(FileOpError::TooMany);
        }
        let operation = Self { reading: Arc::default(), end: Arc::default() };
        let (reading, end) = (operation.reading.clone(), operation.end.clone());
        let thread = std::thread::Builder::new().name("file reader".into());
        let run = move || {
            READING.set(Some(reading));
            let _end_on_drop = EndOnDrop(end);
            work();
        };
        thread.spawn(run).map_err(|_| FileOpError::Failed)?;
        Ok(operation)
    }

    /// Stops waiting for the operation after the time limit.
    fn abandon(self) -> FileOpError {
        ABANDONED.fetch_add(1, Ordering::Relaxed);
        if self.end.is_settled.swap(true, Ordering::AcqRel) {
            ABANDONED.fetch_sub(1, Ordering::Relaxed);
        }
        let file = lock(&self.reading).clone();
        FileOpError::TimedOut(BlockedOperation { file, has_ended: self.end.has_ended.clone() })
    }
}

struct EndOnDrop(Arc<End>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
        if self.0.is_settled.swap(true, Ordering::AcqRel) {
            ABANDONED.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Runs a file operation on its own thread, without blocking the runtime.
///
/// # Errors
///
/// Returns an error if it takes longer than `limit`, if it panics, or if too many earlier operations are blocked.
pub async fn off_runtime<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FileOpError> {
    let (done, result) = tokio::sync::oneshot::channel();
    let operation = Operation::start(move || drop(done.send(work())))?;
    match tokio::time::timeout(limit, result).await {
        Ok(result) => result.map_err(|_| FileOpError::Failed),
        Err(_) => Err(operation.abandon()),
    }
}

/// Runs a file operation on its own thread and blocks until it ends, for callers without a runtime.
///
/// # Errors
///
/// See [`off_runtime`].
pub fn blocking_with_timeout<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FileOpError> {
    let (done, result) = std::sync::mpsc::sync_channel(1);
    let operation = Operation::start(move || drop(done.send(work())))?;
    match result.recv_timeout(limit) {
        Ok(result) => Ok(result),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(FileOpError::Failed),
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(operation.abandon()),
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
        // This FIFO never gets a writer.
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        assert_eq!(kind(&at("pipe")), NotRegular::Special);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(matches!(read(&at("socket"), 10), Err(ReadError::Io(error)) if error.to_string().contains("regular")));
        assert!(read(&at("nothing"), 10).unwrap_err().is_not_found());
    }

    #[test]
    fn refuses_files_above_the_maximum_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"0123456789");
        assert!(matches!(read(&path, 9), Err(ReadError::TooLarge { size: 10, max: 9 })));
        // A file that reports no size.
        assert!(matches!(read(Path::new("/proc/self/status"), 9), Err(ReadError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn reports_the_file_that_exceeded_the_time_limit() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let hangs = move || {
            record_path(Path::new("on/a/share"));
            let _ = released.recv();
        };
        let limit = Duration::from_millis(20);
        let Err(FileOpError::TimedOut(blocked)) = off_runtime(limit, hangs).await else { panic!("expected a timeout") };
        assert_eq!(blocked.file.as_deref(), Some(Path::new("on/a/share")));
        assert!(!blocked.has_ended());
        drop(release);
        assert_eq!(off_runtime(READ_TIMEOUT, || 7).await.unwrap(), 7);
        assert_eq!(blocking_with_timeout(READ_TIMEOUT, || 7).unwrap(), 7);
    }
}
