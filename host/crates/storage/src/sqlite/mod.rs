//! The host's SQLite databases: creation, migration, integrity checks, group commit, concurrent reads, and error
//! reports.
//!
//! A file that is damaged, or belongs to another program or a newer version, is left unchanged. The stores that use
//! this module define the tables. All files are in the data directory, which one host uses at a time.

mod fair_queue;
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

pub(crate) use fair_queue::JobClass;
pub use lock::DirectoryLock;
pub(crate) use mark::{MARK, Mark};
pub(crate) use readers::Readers;
pub(crate) use writer::{Fault, Job, WriteConnection, WriteStore, Writer, WriterLimits};

use crate::error::StorageError;

/// How long a connection waits for another program that has locked the file.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// A kind of database.
#[derive(Debug)]
pub(crate) struct DatabaseKind {
    /// Its name, as used in messages: `journal`.
    pub(crate) name: &'static str,
    /// The name of the file in the data directory.
    pub(crate) file: &'static str,
    /// Its `PRAGMA application_id`, which identifies the kind of file, also to the command `file`.
    pub(crate) application_id: i32,
    /// The migrations, each from one version of the schema to the next; the first starts with an empty file. A released
    /// migration never changes.
    pub(crate) migrations: &'static [&'static str],
}

impl DatabaseKind {
    /// Returns the version of the schema that this code uses.
    pub(crate) fn version(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }
}

/// The location and kind of a database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    kind: &'static DatabaseKind,
    directory: PathBuf,
}

/// Free space in bytes. If the file system reports at least this much, no probe is written.
const AMPLE_SPACE: u64 = 16 << 20;

/// The data of a probe for free space; larger than the space that may be left when a disk reports that it is full.
static PROBE: [u8; 64 * 1024] = [0; 64 * 1024];

impl Database {
    pub(crate) fn new(kind: &'static DatabaseKind, directory: PathBuf) -> Self {
        Self { kind, directory }
    }

    /// Returns the name of the store, as used in messages.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name
    }

    /// Returns the directory of the file.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of the file. A backup consists of this file and [`Database::wal`].
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(self.kind.file)
    }

    /// Returns the path of SQLite's write-ahead log, which contains the commits that are not in the file yet.
    pub(crate) fn wal(&self) -> PathBuf {
        self.directory.join(format!("{}-wal", self.kind.file))
    }

    /// Converts an error of SQLite.
    pub(crate) fn explain(&self, error: &rusqlite::Error) -> StorageError {
        use rusqlite::Error;
        match error {
            Error::SqliteFailure(code, _) => self.explain_code(*code, error),
            // The file contains a value that this code never writes.
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
            ErrorCode::NotADatabase => self.wrong_kind("it is not a SQLite database"),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StorageError::unavailable(
                self.kind.name,
                format!("another program keeps {} locked ({error}); close that program", self.file().display()),
            ),
            // For some writes, SQLite reports a full disk as another error.
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen if self.has_no_space() => self.no_space(),
            _ => self.broken(format!("{}: {error}", self.file().display())),
        }
    }

    /// Creates the error of an operation that failed.
    pub(crate) fn broken(&self, detail: impl Into<String>) -> StorageError {
        StorageError::broken(self.kind.name, detail)
    }

    /// Creates the error of a file that this version cannot use.
    pub(crate) fn unusable(&self, detail: impl Into<String>) -> StorageError {
        StorageError::unusable(self.kind.name, detail)
    }

    /// Creates the error of an operation on a closed store.
    pub(crate) fn closed(&self) -> StorageError {
        StorageError::closed(self.kind.name)
    }

    /// Creates the error of a writer thread that cannot be started.
    pub(crate) fn no_thread(&self, error: &std::io::Error) -> StorageError {
        self.broken(format!("cannot start the thread that writes it: {error}"))
    }

    /// Creates the error of a blocking task that panicked or was canceled.
    pub(crate) fn task_failed(&self, error: &tokio::task::JoinError) -> StorageError {
        self.broken(format!("the operation was interrupted: {error}"))
    }

    /// Creates the error of a directory that cannot be used.
    pub(crate) fn directory_error(&self, error: &std::io::Error) -> StorageError {
        directory_error(self.kind.name, &self.directory, error)
    }

    fn no_space(&self) -> StorageError {
        no_space(self.kind.name, &self.directory)
    }

    /// Creates the error of a damaged file.
    fn damaged(&self, how: &str) -> StorageError {
        self.unusable(format!(
            "the {} {} is damaged ({how}) and was left as it is; restore it from a backup, or move it and {} away to \
             start with an empty one",
            self.kind.name,
            self.file().display(),
            self.wal().display()
        ))
    }

    /// Creates the error of a file that is not of this kind.
    fn wrong_kind(&self, why: &str) -> StorageError {
        let name = self.kind.name;
        self.unusable(format!(
            "{} is not a {name} ({why}) and was left as it is; restore the {name} from a backup, or move the file away \
             to start with an empty one",
            self.file().display()
        ))
    }

    /// Checks that there is free space in the directory. If the file system reports ample space, the check writes a
    /// probe only if `in_doubt`, because the report ignores quotas.
    pub(crate) fn check_free_space(&self, in_doubt: bool) -> Result<(), StorageError> {
        let has_ample_space = || {
            let stats = rustix::fs::statvfs(&self.directory);
            stats.is_ok_and(|stats| stats.f_bavail.saturating_mul(stats.f_frsize) >= AMPLE_SPACE)
        };
        if !in_doubt && has_ample_space() || !self.has_no_space() { Ok(()) } else { Err(self.no_space()) }
    }

    /// Writes a probe. Returns whether it fails because the disk is full.
    fn has_no_space(&self) -> bool {
        let path = self.directory.join(format!("{}.probe", self.kind.file));
        let written = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(&PROBE)?;
            file.sync_all()
        });
        let _ = std::fs::remove_file(&path); // the next probe overwrites a file that is left behind
        matches!(written, Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

/// Creates the error of a full disk.
fn no_space(store: &'static str, directory: &Path) -> StorageError {
    StorageError::full(store, format!("no room is left on the disk of {}; free some space", directory.display()))
}

/// Creates the error of a directory that cannot be used.
fn directory_error(store: &'static str, directory: &Path, error: &std::io::Error) -> StorageError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => no_space(store, directory),
        _ => StorageError::broken(store, format!("the data directory {} can't be used: {error}", directory.display())),
    }
}
