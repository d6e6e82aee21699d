//! The high-water mark of a database: the number of its commits, in a separate file.
//!
//! The latest commits are only in SQLite's write-ahead log. If the log is removed or damaged, SQLite opens the database
//! without them and reports no error. Therefore the database counts its commits in a table, and after each commit the
//! count is also written to `NAME.mark`. A database with a lower count than its mark has lost commits.
//!
//! The mark is raised after the commit is durable. A host that is killed between the two leaves a mark that is too low,
//! never too high, so there are no false alarms. The count costs each commit one more page in the log, and no `fsync`:
//! the mark is a few bytes that are overwritten in place. They survive the process at once, and the operating system
//! writes them to the disk later. After a power failure, the mark may be some seconds old, and the host does not detect
//! the loss of the commits of these seconds.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::{Timestamp, Unit};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::Database;
use crate::error::StorageError;
use modhost_core::clock::{from_millis, to_millis};

/// The migration that adds the table in which a database counts its commits.
pub(crate) const MARK: &str = "
-- How many changes were committed, and when the last one was; the same stands in the .mark beside the file, which shows if
-- some are missing. identity is random bytes, drawn once: it tells which file a mark belongs to.
CREATE TABLE mark (
    identity BLOB NOT NULL,
    commits  INTEGER NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
INSERT INTO mark SELECT randomblob(16), 0, 0;
";

/// The format identifier at the beginning of a mark.
const FORMAT: &str = "modhost mark 1";

/// Maximum size of a mark, in bytes.
const MAX_LENGTH: u64 = 256;

/// The count of commits in a database or a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    identity: String,
    commits: i64,
    /// The time of the last commit, in milliseconds since 1970 by the wall clock. Used only in messages.
    at: i64,
}

/// The mark of an open database.
pub(crate) struct Mark {
    path: PathBuf,
    file: File,
    count: Count,
    /// Whether the last write failed. Only the first of several failures is logged.
    failed: bool,
}

/// An error of reading a mark.
enum NoMark {
    /// The file does not exist.
    Missing,
    /// The file cannot be read or parsed.
    Unreadable(String),
}

impl Database {
    /// Returns the path of the high-water mark.
    pub(crate) fn mark(&self) -> PathBuf {
        self.file().with_extension("mark")
    }

    /// Checks that the database has at least as many commits as its mark.
    pub(super) fn compare_with_mark(&self, connection: &Connection) -> Result<(), StorageError> {
        match self.missing(connection)? {
            Some(missing) => Err(self.unusable(missing)),
            None => Ok(()),
        }
    }

    /// Returns a description of the commits that the database has lost; `None` if nothing is missing. Reads the mark
    /// first, because a host that uses the database concurrently raises the mark after each commit.
    pub(crate) fn missing(&self, connection: &Connection) -> Result<Option<String>, StorageError> {
        let mark = match read_mark(&self.mark()) {
            Ok(mark) => mark,
            Err(NoMark::Missing) => return Ok(None),
            Err(NoMark::Unreadable(why)) => {
                tracing::warn!(
                    file = %self.mark().display(), error = why,
                    "cannot read the high-water mark; lost changes would not be noticed"
                );
                return Ok(None);
            }
        };
        let counted = read_count(connection).map_err(|error| self.explain(&error))?;
        match counted {
            Some(counted) if counted.identity != mark.identity => {
                tracing::warn!(
                    file = %self.mark().display(), "the high-water mark belongs to another file; it is replaced"
                );
                Ok(None)
            }
            Some(counted) if counted.commits >= mark.commits => Ok(None),
            counted => Ok(Some(self.describe_loss(counted.as_ref(), &mark))),
        }
    }

    fn describe_loss(&self, counted: Option<&Count>, mark: &Count) -> String {
        let (name, file, wal) = (self.kind.name, self.file(), self.wal());
        let commits = counted.map_or(0, |counted| counted.commits);
        let changes = mark.commits - commits;
        let between = match counted.filter(|counted| counted.commits > 0) {
            Some(counted) => format!("committed after {} and up to {}", time(counted.at), time(mark.at)),
            None => format!("committed up to {}", time(mark.at)),
        };
        format!(
            "the {name} {} is behind its high-water mark: {changes} of {} changes are missing, {between}. The file {} was \
             removed or damaged, or an older copy was put in its place. Nothing was changed. Restore {} and {} as they \
             were and start again; or start with --accept-data-loss to continue without the missing changes: events \
             that were acknowledged in that time may be lost, and calls may be repeated",
            file.display(),
            mark.commits,
            wal.display(),
            file.display(),
            wal.display(),
        )
    }

    /// Accepts the loss of missing commits by removing the mark. Returns their description; `None` if nothing is
    /// missing.
    ///
    /// # Errors
    ///
    /// If the database cannot be read, or the mark cannot be removed.
    pub(crate) fn accept_loss(&self) -> Result<Option<String>, StorageError> {
        if !fs::exists(self.mark()).unwrap_or(true) || !fs::exists(self.file()).unwrap_or(true) {
            return Ok(None);
        }
        let connection = self.connect_to_read().map_err(|error| self.explain(&error))?;
        let missing = self.missing(&connection)?;
        if missing.is_some() {
            fs::remove_file(self.mark()).map_err(|error| self.directory_error(&error))?;
        }
        Ok(missing)
    }
}

impl Mark {
    /// Opens the mark of an open database, creates it if necessary, and sets it to the count of the database.
    pub(crate) fn open(database: &Database, connection: &Connection) -> Result<Self, StorageError> {
        let counted = read_count(connection).map_err(|error| database.explain(&error))?;
        let count = counted.ok_or_else(|| database.damaged("its count of commits is missing"))?;
        let (path, io) = (database.mark(), |error: std::io::Error| database.directory_error(&error));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let mut mark = Self { path, file, count, failed: false };
        mark.write();
        // Synced once, so that the mark exists even after a power failure.
        let _ = mark.file.sync_all().and_then(|()| File::open(database.directory())?.sync_all());
        Ok(mark)
    }

    /// Counts the open transaction as a commit. Must be its last statement.
    pub(crate) fn count(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE mark SET commits = ?1, at = ?2";
        connection.prepare_cached(sql)?.execute(params![self.count.commits + 1, now()]).map(drop)
    }

    /// Raises the mark after the counted commit is durable. A failure is logged and does not fail the commit.
    pub(crate) fn raise(&mut self) {
        self.count.commits += 1;
        self.count.at = now();
        self.write();
    }

    /// Writes a page without changing data.
    pub(crate) fn touch(connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached("UPDATE mark SET at = at")?.execute([]).map(drop)
    }

    fn write(&mut self) {
        let text = self.count.to_text();
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(text.as_bytes()));
        match written {
            Ok(()) => self.failed = false,
            Err(error) if !std::mem::replace(&mut self.failed, true) => tracing::warn!(
                file = %self.path.display(), %error,
                "cannot write the high-water mark; lost changes would not be noticed"
            ),
            Err(_) => {}
        }
    }
}

impl Count {
    /// Formats the count as the content of a mark. The length is constant, so that a mark can be overwritten in place.
    fn to_text(&self) -> String {
        let text = format!("{FORMAT} {} {:019} {:019}", self.identity, self.commits, self.at);
        format!("{text} {}\n", checksum(&text))
    }

    fn from_text(text: &str) -> Option<Self> {
        let (text, sum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        if sum != checksum(text) {
            return None;
        }
        let mut words = text.strip_prefix(FORMAT)?.split_whitespace();
        let (identity, commits, at) = (words.next()?.to_owned(), words.next()?, words.next()?);
        Some(Self { identity, commits: commits.parse().ok()?, at: at.parse().ok()? })
    }
}

fn checksum(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..8])
}

/// Reads the count of a database; `None` if its schema is too old to have one.
fn read_count(connection: &Connection) -> rusqlite::Result<Option<Count>> {
    if !connection.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'mark'")?.exists([])? {
        return Ok(None);
    }
    let count = |row: &rusqlite::Row<'_>| {
        Ok(Count { identity: hex::encode(row.get::<_, Vec<u8>>(0)?), commits: row.get(1)?, at: row.get(2)? })
    };
    connection.query_row("SELECT identity, commits, at FROM mark", [], count).optional()
}

fn read_mark(path: &Path) -> Result<Count, NoMark> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LENGTH).read_to_string(&mut text));
    match read {
        Ok(_) => Count::from_text(&text).ok_or_else(|| NoMark::Unreadable("it is damaged".into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(NoMark::Missing),
        Err(error) => Err(NoMark::Unreadable(error.to_string())),
    }
}

/// Returns the wall-clock time, in milliseconds since 1970. Used only in messages.
fn now() -> i64 {
    to_millis(SystemTime::now())
}

/// Formats a time for messages, in whole seconds.
fn time(millis: i64) -> String {
    let time = Timestamp::try_from(from_millis(millis)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.round(Unit::Second).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(commits: i64) -> Count {
        Count { identity: "00112233445566778899aabbccddeeff".into(), commits, at: 1_790_000_000_123 }
    }

    #[test]
    fn formats_marks_with_constant_length_and_parses_them() {
        let lengths = [0, 9, 10, i64::MAX].map(|commits| {
            let text = count(commits).to_text();
            assert_eq!(Count::from_text(&text), Some(count(commits)));
            text.len()
        });
        assert!(lengths.iter().all(|length| *length == lengths[0] && *length as u64 <= MAX_LENGTH), "{lengths:?}");
    }

    #[test]
    fn rejects_a_mark_with_any_byte_changed_or_cut_off() {
        let text = count(77).to_text();
        for index in 0..text.len() {
            assert_eq!(Count::from_text(&text[..index]), None, "cut off at {index}");
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(Count::from_text(&changed), None, "changed at {index}: {changed}");
        }
    }
}
