//! What SQLite reports, in the journal's words.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::journal::JournalError;

/// Why a job of the writer was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite failed: the transaction is lost, and with it what the jobs before it did.
    Storage(rusqlite::Error),
    /// The job is not to be done, and touched nothing.
    Refused(JournalError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error)
    }
}

/// Where a journal is, for its errors.
#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
}

/// Written by the probe for room; larger than what is left over when a disk says that it is full.
static PROBE: [u8; 64 * 1024] = [0; 64 * 1024];

impl Place {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory the journal is in.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The journal's file.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join("journal.sqlite")
    }

    /// SQLite's write-ahead log beside it: what was committed and is not in the file yet.
    pub(super) fn wal(&self) -> PathBuf {
        self.directory.join("journal.sqlite-wal")
    }

    /// The file that is locked by the host the journal belongs to.
    pub(super) fn lock(&self) -> PathBuf {
        self.directory.join("journal.lock")
    }

    /// A failure of SQLite, told to whoever asked something of the journal.
    pub(super) fn explain(&self, error: &rusqlite::Error) -> JournalError {
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

    fn explain_code(&self, code: ffi::Error, error: &rusqlite::Error) -> JournalError {
        match code.code {
            ErrorCode::DiskFull => self.full(),
            ErrorCode::DatabaseCorrupt => self.damaged(&error.to_string()),
            ErrorCode::NotADatabase => self.not_a_journal("it is no SQLite database"),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => JournalError::Broken(format!(
                "another program keeps {} locked ({error}); close what has it open",
                self.file().display()
            )),
            // SQLite says only for some of its writes that it was room that was missing.
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen if self.has_no_room() => self.full(),
            _ => self.broken(error),
        }
    }

    fn broken(&self, error: &rusqlite::Error) -> JournalError {
        JournalError::Broken(format!("{}: {error}", self.file().display()))
    }

    /// There is no room to write.
    pub(super) fn full(&self) -> JournalError {
        JournalError::Full(format!("no room is left on the disk of {}; make room there", self.directory.display()))
    }

    /// The file is a journal, and damaged.
    pub(super) fn damaged(&self, how: &str) -> JournalError {
        JournalError::Unusable(format!(
            "the journal {} is damaged ({how}) and was left as it is; restore it from a backup, or move it and {} away \
             to start with an empty one",
            self.file().display(),
            self.wal().display()
        ))
    }

    /// The file is something else.
    pub(super) fn not_a_journal(&self, why: &str) -> JournalError {
        JournalError::Unusable(format!(
            "{} is not a journal ({why}) and was left as it is; restore the journal from a backup, or move the file \
             away to start with an empty one",
            self.file().display()
        ))
    }

    /// Whether nothing more can be written beside the journal.
    fn has_no_room(&self) -> bool {
        let path = self.directory.join("journal.probe");
        let written = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(&PROBE)?;
            file.sync_all()
        });
        let _ = std::fs::remove_file(&path); // it is a probe: the next one overwrites what is left
        matches!(written, Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

/// The system gives no thread to work on.
pub(super) fn no_thread(error: &std::io::Error) -> JournalError {
    JournalError::Broken(format!("no thread can be started to write it: {error}"))
}
