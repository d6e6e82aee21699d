//! The high-water mark beside a file: the number of commits.
//!
//! The latest commits are only in SQLite's write-ahead log. If the log is removed or damaged, SQLite silently takes the rest
//! for everything. Therefore the file counts its commits, and after each commit the count is written into `NAME.mark`, too. A
//! file that has counted fewer commits than the mark has lost the difference.
//!
//! The order avoids false alarms: the mark is raised after the commit is durable, so a host that is killed between the two
//! leaves a mark that is behind, never ahead. It costs a commit one more page in the log and no `fsync`: the mark is a few
//! bytes, overwritten in place, which outlive the process at once and which the system writes to the disk later. After a
//! power failure the mark may be some seconds behind, and the host does not notice the loss of those commits.

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

/// The table in which a file counts its commits.
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

/// The first words of the file.
const FORMAT: &str = "modhost mark 1";

/// Maximum size of a mark, in bytes.
const MAX_LENGTH: u64 = 256;

/// The count of a file or a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    identity: String,
    commits: i64,
    /// When the last commit was made, in milliseconds since 1970 by the wall clock: for people.
    at: i64,
}

/// The mark of an open file.
pub(crate) struct Mark {
    path: PathBuf,
    file: File,
    count: Count,
    /// Whether a failure to write it was logged.
    failed: bool,
}

/// Why a mark has no count.
enum NoMark {
    /// It does not exist.
    Missing,
    /// It cannot be read, or has another form.
    Unreadable(String),
}

impl Database {
    /// The path of the high-water mark.
    pub(crate) fn mark(&self) -> PathBuf {
        self.file().with_extension("mark")
    }

    /// Checks that the file has as many commits as the mark.
    pub(super) fn compare_with_mark(&self, connection: &Connection) -> Result<(), StorageError> {
        match self.missing(connection)? {
            Some(missing) => Err(self.unusable(missing)),
            None => Ok(()),
        }
    }

    /// Describes the commits that the file has lost; none if nothing is missing. The mark is read first, because a host that
    /// runs on the file raises it after its commits.
    pub(crate) fn missing(&self, connection: &Connection) -> Result<Option<String>, StorageError> {
        let mark = match read(&self.mark()) {
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
        let counted = counted(connection).map_err(|error| self.explain(&error))?;
        match counted {
            Some(counted) if counted.identity != mark.identity => {
                tracing::warn!(
                    file = %self.mark().display(), "the high-water mark belongs to another file; it is replaced"
                );
                Ok(None)
            }
            Some(counted) if counted.commits >= mark.commits => Ok(None),
            counted => Ok(Some(self.behind(counted.as_ref(), &mark))),
        }
    }

    fn behind(&self, counted: Option<&Count>, mark: &Count) -> String {
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
             were and start again; or start with --accept-data-loss to go on without the missing changes: events that \
             were acknowledged in that time may be lost, and calls may be made again",
            file.display(),
            mark.commits,
            wal.display(),
            file.display(),
            wal.display(),
        )
    }

    /// Gives up the commits that the file has lost, by removing the mark. Returns their description; none if nothing is missing.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the mark not removed.
    pub(crate) fn accept_loss(&self) -> Result<Option<String>, StorageError> {
        if !fs::exists(self.mark()).unwrap_or(true) || !fs::exists(self.file()).unwrap_or(true) {
            return Ok(None);
        }
        let connection = self.connect_to_read().map_err(|error| self.explain(&error))?;
        let missing = self.missing(&connection)?;
        if missing.is_some() {
            fs::remove_file(self.mark()).map_err(|error| self.unreachable(&error))?;
        }
        Ok(missing)
    }
}

impl Mark {
    /// Opens the mark of a file that is ready, created if necessary.
    pub(crate) fn open(database: &Database, connection: &Connection) -> Result<Self, StorageError> {
        let counted = counted(connection).map_err(|error| database.explain(&error))?;
        let count = counted.ok_or_else(|| database.damaged("its count of commits is missing"))?;
        let (path, io) = (database.mark(), |error: std::io::Error| database.unreachable(&error));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let mut mark = Self { path, file, count, failed: false };
        mark.write();
        // Synced once, so that there is a mark after a power failure, too.
        let _ = mark.file.sync_all().and_then(|()| File::open(database.directory())?.sync_all());
        Ok(mark)
    }

    /// Counts the open transaction as a commit, as its last statement.
    pub(crate) fn count(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE mark SET commits = ?1, at = ?2";
        connection.prepare_cached(sql)?.execute(params![self.count.commits + 1, now()]).map(drop)
    }

    /// Raises the mark, after the counted commit is durable. A failure to do so fails no commit.
    pub(crate) fn raise(&mut self) {
        self.count.commits += 1;
        self.count.at = now();
        self.write();
    }

    /// Writes a page that changes nothing.
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
    /// Formats it for a mark, always with the same length, so that it can be overwritten.
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

/// Reads the count of a file; none if its version has no count.
fn counted(connection: &Connection) -> rusqlite::Result<Option<Count>> {
    if !connection.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'mark'")?.exists([])? {
        return Ok(None);
    }
    let count = |row: &rusqlite::Row<'_>| {
        Ok(Count { identity: hex::encode(row.get::<_, Vec<u8>>(0)?), commits: row.get(1)?, at: row.get(2)? })
    };
    connection.query_row("SELECT identity, commits, at FROM mark", [], count).optional()
}

fn read(path: &Path) -> Result<Count, NoMark> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LENGTH).read_to_string(&mut text));
    match read {
        Ok(_) => Count::from_text(&text).ok_or_else(|| NoMark::Unreadable("it is damaged".into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(NoMark::Missing),
        Err(error) => Err(NoMark::Unreadable(error.to_string())),
    }
}

/// The wall clock: the time is for people.
fn now() -> i64 {
    to_millis(SystemTime::now())
}

/// Formats a time for people, in whole seconds.
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
    fn keeps_the_length_of_marks_and_reads_them_back() {
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
        for place in 0..text.len() {
            assert_eq!(Count::from_text(&text[..place]), None, "cut off at {place}");
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(Count::from_text(&changed), None, "changed at {place}: {changed}");
        }
    }
}
