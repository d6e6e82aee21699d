//! The host's SQLite files: how they are created, opened and checked, how one thread writes to each, and how their errors are
//! reported.
//!
//! A file that is damaged, of another program or of a newer version is left unchanged. The modules that use this one own the
//! tables. All files are in the data directory, which one host uses at a time.

mod health;
mod lock;
mod mark;
mod open;
mod readers;
mod writer;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ErrorCode;
use rusqlite::ffi;

pub use lock::DirectoryLock;
pub(crate) use mark::{MARK, Mark};
pub(crate) use readers::Readers;
pub(crate) use writer::{Fault, Job, WriteConnection, WriteStore, Writer, WriterLimits};

use crate::error::StorageError;

/// How long a connection waits for another program that holds a lock on the file.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// A kind of file.
#[derive(Debug)]
pub(crate) struct DatabaseKind {
    /// Its name, for people: `journal`.
    pub(crate) name: &'static str,
    /// The name of the file in its directory.
    pub(crate) file: &'static str,
    /// Its `PRAGMA application_id`, by which `file` and people recognize it.
    pub(crate) application_id: i32,
    /// The migrations to each version of the schema from the one before; the first from an empty file. A released migration
    /// never changes.
    pub(crate) migrations: &'static [&'static str],
}

impl DatabaseKind {
    /// The version of the schema that this code uses.
    pub(crate) fn version(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }
}

/// A file of a kind in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    kind: &'static DatabaseKind,
    directory: PathBuf,
}

/// The free space reported by a file system from which it need not be tried, in bytes.
const PLENTY: u64 = 16 << 20;

/// Written by the probe for space; larger than the rest that is left when a disk reports that it is full.
static PROBE: [u8; 64 * 1024] = [0; 64 * 1024];

impl Database {
    pub(crate) fn new(kind: &'static DatabaseKind, directory: PathBuf) -> Self {
        Self { kind, directory }
    }

    /// The name of the store, for people.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name
    }

    /// The directory it is in.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file: a backup consists of it and [`Database::wal`].
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(self.kind.file)
    }

    /// SQLite's write-ahead log beside it: the commits that are not in the file yet.
    pub(crate) fn wal(&self) -> PathBuf {
        self.directory.join(format!("{}-wal", self.kind.file))
    }

    /// Translates a failure of SQLite.
    pub(crate) fn explain(&self, error: &rusqlite::Error) -> StorageError {
        use rusqlite::Error;
        match error {
            Error::SqliteFailure(code, _) => self.explain_code(*code, error),
            // The file holds a value that this code never writes.
            Error::FromSqlConversionFailure(..) | Error::IntegralValueOutOfRange(..) | Error::InvalidColumnType(..) => {
                self.damaged(&error.to_string())
            }
            _ => self.broken(format!("{}: {error}", self.file().display())),
        }
    }

    fn explain_code(&self, code: ffi::Error, error: &rusqlite::Error) -> StorageError {
        match code.code {
            ErrorCode::DiskFull => self.no_space(),
            ErrorCode::DatabaseCorrupt => self.damaged(&error.to_string()),
            ErrorCode::NotADatabase => self.foreign("it is no SQLite database"),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StorageError::unavailable(
                self.kind.name,
                format!("another program keeps {} locked ({error}); close that program", self.file().display()),
            ),
            // For some writes SQLite does not report that the disk is full.
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen if self.has_no_space() => self.no_space(),
            _ => self.broken(format!("{}: {error}", self.file().display())),
        }
    }

    /// Creates an error of a store that fails.
    pub(crate) fn broken(&self, detail: impl Into<String>) -> StorageError {
        StorageError::broken(self.kind.name, detail)
    }

    /// Creates an error of data that this version cannot use.
    pub(crate) fn unusable(&self, detail: impl Into<String>) -> StorageError {
        StorageError::unusable(self.kind.name, detail)
    }

    /// Creates the error of an operation on a closed store.
    pub(crate) fn closed(&self) -> StorageError {
        StorageError::closed(self.kind.name)
    }

    /// Creates the error of a thread that cannot be started.
    pub(crate) fn no_thread(&self, error: &std::io::Error) -> StorageError {
        self.broken(format!("cannot start the thread that writes it: {error}"))
    }

    /// Creates the error of a blocking task that panicked or was canceled.
    pub(crate) fn interrupted(&self, error: &tokio::task::JoinError) -> StorageError {
        self.broken(format!("the operation was interrupted: {error}"))
    }

    /// Creates the error of a directory that cannot be used.
    pub(crate) fn unreachable(&self, error: &std::io::Error) -> StorageError {
        unreachable_directory(self.kind.name, &self.directory, error)
    }

    fn no_space(&self) -> StorageError {
        no_space(self.kind.name, &self.directory)
    }

    /// Creates the error of a file of this kind that is damaged.
    fn damaged(&self, how: &str) -> StorageError {
        self.unusable(format!(
            "the {} {} is damaged ({how}) and was left as it is; restore it from a backup, or move it and {} away to \
             start with an empty one",
            self.kind.name,
            self.file().display(),
            self.wal().display()
        ))
    }

    /// Creates the error of a file of another kind.
    fn foreign(&self, why: &str) -> StorageError {
        let name = self.kind.name;
        self.unusable(format!(
            "{} is not a {name} ({why}) and was left as it is; restore the {name} from a backup, or move the file away \
             to start with an empty one",
            self.file().display()
        ))
    }

    /// Checks that more than a few bytes can be written beside the file. If the file system reports plenty of space, the check
    /// writes only if `in_doubt`: the report does not include quotas.
    pub(crate) fn check_room(&self, in_doubt: bool) -> Result<(), StorageError> {
        let has_plenty = || {
            let room = rustix::fs::statvfs(&self.directory);
            room.is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) >= PLENTY)
        };
        if !in_doubt && has_plenty() || !self.has_no_space() { Ok(()) } else { Err(self.no_space()) }
    }

    /// Returns whether nothing more can be written beside the file.
    fn has_no_space(&self) -> bool {
        let path = self.directory.join(format!("{}.probe", self.kind.file));
        let written = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(&PROBE)?;
            file.sync_all()
        });
        let _ = std::fs::remove_file(&path); // it is a probe: the next one overwrites what is left
        matches!(written, Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

/// Creates the error of a disk without space.
fn no_space(store: &'static str, directory: &Path) -> StorageError {
    StorageError::full(store, format!("no room is left on the disk of {}; make room there", directory.display()))
}

/// Creates the error of a directory that cannot be used.
fn unreachable_directory(store: &'static str, directory: &Path, error: &std::io::Error) -> StorageError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => no_space(store, directory),
        _ => StorageError::broken(store, format!("the data directory {} can't be used: {error}", directory.display())),
    }
}
