//! What the host's own SQLite files have in common: how one is made and opened, what is looked at before anything is
//! written to it, and what its failures mean to people.
//!
//! A file that is damaged, another program's or of a newer version is left as it is. Which tables are in it and who
//! writes them is its owner's matter. All of them lie in the data directory, which belongs to one host at a time.

mod lock;
mod mark;
mod open;
mod readers;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ErrorCode;
use rusqlite::ffi;

pub use lock::DirectoryLock;
pub(crate) use mark::{MARK, Mark};
pub(crate) use readers::Readers;

/// How long a connection waits for another program that has the file locked.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// A kind of file.
#[derive(Debug)]
pub(crate) struct DatabaseKind {
    /// What people call it: `journal`.
    pub(crate) name: &'static str,
    /// What the file is called in its directory.
    pub(crate) file: &'static str,
    /// What `PRAGMA application_id` says of it, so that `file` and people can tell.
    pub(crate) application_id: i32,
    /// What makes each version of the schema out of the one before, the first out of nothing. One that was released is
    /// never changed.
    pub(crate) migrations: &'static [&'static str],
}

impl DatabaseKind {
    /// The version of the schema this code works with.
    pub(crate) fn version(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }
}

/// A file of a kind, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    kind: &'static DatabaseKind,
    directory: PathBuf,
}

/// Why a file can't be used.
#[derive(Clone, Debug)]
pub enum StorageError {
    /// There is no room to write.
    Full(String),
    /// The storage behind it fails.
    Broken(String),
    /// What is on disk is nothing this version can use.
    Unusable(String),
}

/// How much room a file system says it has that needn't be tried, in bytes.
const PLENTY: u64 = 16 << 20;

/// Written by the probe for room; larger than what is left over when a disk says that it is full.
static PROBE: [u8; 64 * 1024] = [0; 64 * 1024];

impl Database {
    pub(crate) fn new(kind: &'static DatabaseKind, directory: PathBuf) -> Self {
        Self { kind, directory }
    }

    /// The directory it is in.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file: what a backup is made of, together with [`Database::wal`].
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(self.kind.file)
    }

    /// SQLite's write-ahead log beside it: what was committed and is not in the file yet.
    pub(crate) fn wal(&self) -> PathBuf {
        self.directory.join(format!("{}-wal", self.kind.file))
    }

    /// A failure of SQLite, told to whoever asked for something.
    pub(crate) fn explain(&self, error: &rusqlite::Error) -> StorageError {
        use rusqlite::Error;
        match error {
            Error::SqliteFailure(code, _) => self.explain_code(*code, error),
            // What was written can't be read: the file says something this code never wrote.
            Error::FromSqlConversionFailure(..) | Error::IntegralValueOutOfRange(..) | Error::InvalidColumnType(..) => {
                self.damaged(&error.to_string())
            }
            _ => self.broken(error),
        }
    }

    fn explain_code(&self, code: ffi::Error, error: &rusqlite::Error) -> StorageError {
        match code.code {
            ErrorCode::DiskFull => self.full(),
            ErrorCode::DatabaseCorrupt => self.damaged(&error.to_string()),
            ErrorCode::NotADatabase => self.foreign("it is no SQLite database"),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StorageError::Broken(format!(
                "another program keeps {} locked ({error}); close what has it open",
                self.file().display()
            )),
            // SQLite says only for some of its writes that it was room that was missing.
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen if self.has_no_room() => self.full(),
            _ => self.broken(error),
        }
    }

    fn broken(&self, error: &rusqlite::Error) -> StorageError {
        StorageError::Broken(format!("{}: {error}", self.file().display()))
    }

    /// There is no room to write.
    fn full(&self) -> StorageError {
        StorageError::no_room(&self.directory)
    }

    /// The directory can't be worked with.
    pub(crate) fn unreachable(&self, error: &std::io::Error) -> StorageError {
        StorageError::unreachable(&self.directory, error)
    }

    /// The file is of this kind, and damaged.
    fn damaged(&self, how: &str) -> StorageError {
        StorageError::Unusable(format!(
            "the {} {} is damaged ({how}) and was left as it is; restore it from a backup, or move it and {} away to \
             start with an empty one",
            self.kind.name,
            self.file().display(),
            self.wal().display()
        ))
    }

    /// The file is something else.
    fn foreign(&self, why: &str) -> StorageError {
        let name = self.kind.name;
        StorageError::Unusable(format!(
            "{} is not a {name} ({why}) and was left as it is; restore the {name} from a backup, or move the file away \
             to start with an empty one",
            self.file().display()
        ))
    }

    /// Makes sure that more than a few bytes can be written beside the file. Where the file system says that there is plenty
    /// of room, it is only tried if that was in doubt: quotas are not among what it says.
    pub(crate) fn check_room(&self, in_doubt: bool) -> Result<(), StorageError> {
        let has_plenty = || {
            let room = rustix::fs::statvfs(&self.directory);
            room.is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) >= PLENTY)
        };
        if !in_doubt && has_plenty() || !self.has_no_room() { Ok(()) } else { Err(self.full()) }
    }

    /// Whether nothing more can be written beside the file.
    fn has_no_room(&self) -> bool {
        let path = self.directory.join(format!("{}.probe", self.kind.file));
        let written = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(&PROBE)?;
            file.sync_all()
        });
        let _ = std::fs::remove_file(&path); // it is a probe: the next one overwrites what is left
        matches!(written, Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

impl StorageError {
    /// There is no room to write in a directory.
    fn no_room(directory: &Path) -> Self {
        Self::Full(format!("no room is left on the disk of {}; make room there", directory.display()))
    }

    /// A data directory can't be worked with.
    fn unreachable(directory: &Path, error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::no_room(directory),
            _ => Self::Broken(format!("the data directory {} can't be used: {error}", directory.display())),
        }
    }

    /// The system gives no thread to work on.
    pub(crate) fn no_thread(error: &std::io::Error) -> Self {
        Self::Broken(format!("no thread can be started to write it: {error}"))
    }

    /// Whoever would do it has ended.
    pub(crate) fn closed() -> Self {
        Self::Broken("it was closed".into())
    }
}
