//! Opening a journal: one host at a time, nothing touched that isn't a journal this version can use.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::checkpoint::Checkpoints;
use super::fault::Place;
use super::schema;
use super::store::Store;
use crate::journal::{JournalError, Result};

/// How long a connection waits for another program that has the file locked.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// How long the file is searched for damage when it is opened. A large one isn't searched to the end; what is wrong
/// there shows when it is read.
const LONGEST_CHECK: Duration = Duration::from_secs(1);

/// After how many of SQLite's steps it is looked whether the search for damage has taken too long.
const STEPS_BETWEEN_LOOKS: std::ffi::c_int = 1000;

/// More statements than there are.
const STATEMENTS: usize = 128;

/// What the writer needs to begin.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) checkpoints: Checkpoints,
    pub(super) lock: Lock,
    pub(super) salt: [u8; 32],
}

/// What makes a journal this process's, for as long as it is held.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Said, not left to the closing of the file: a process that is just being started has it open too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Opens the journal in a directory, made if need be. May take seconds if it is large.
pub(super) fn open(place: &Place) -> Result<Opened> {
    fs::create_dir_all(place.directory()).map_err(|error| unreachable_directory(place, &error))?;
    let lock = lock(place)?;
    match fs::metadata(place.file()) {
        Ok(file) if file.len() == 0 => return Err(place.damaged("the file is empty")),
        Ok(_) => inspect(place)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(place)?,
        Err(error) => return Err(unreachable_directory(place, &error)),
    }
    let sql = |error: rusqlite::Error| place.explain(&error);
    let mut connection = connect(place).map_err(sql)?;
    // A page cache of 32 MiB: the ids are in no order, and their index is read all over.
    connection.pragma_update(None, "cache_size", -32 * 1024).map_err(sql)?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    schema::migrate(&mut connection, version).map_err(sql)?;
    let salt = connection.query_row("SELECT value FROM salt", [], |row| row.get(0)).map_err(sql)?;
    let checkpoints = Checkpoints::start(&mut connection, place)?;
    let store = Store::new(connection, place.clone()).map_err(sql)?;
    Ok(Opened { store, checkpoints, lock, salt })
}

/// Makes sure that there is a journal this version can read, without touching it; answers with its salt.
pub(super) fn look(place: &Place) -> Result<[u8; 32]> {
    if !fs::exists(place.file()).unwrap_or(false) {
        let directory = place.directory().display();
        return Err(JournalError::Unusable(format!(
            "there is no journal in {directory}; is it a host's data directory?"
        )));
    }
    inspect(place)?;
    let sql = |error: rusqlite::Error| place.explain(&error);
    let connection = connect_to_read(place).map_err(sql)?;
    connection.query_row("SELECT value FROM salt", [], |row| row.get(0)).map_err(sql)
}

/// A connection that writes to an existing journal.
pub(super) fn connect(place: &Place) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(place.file(), OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    set_up(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Who checkpoints, and when, is said in `checkpoint`; and a log that became long shrinks again to 32 MiB.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 32 * 1024 * 1024)?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn connect_to_read(place: &Place) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(place.file(), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    set_up(&connection)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", false)
}

/// Takes the lock that makes the journal this process's.
fn lock(place: &Place) -> Result<Lock> {
    let path = place.lock();
    let unusable = |error: std::io::Error| unreachable_directory(place, &error);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            // For the message of the one that comes second; nothing depends on it.
            let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(Lock(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            Err(JournalError::Unusable(format!(
                "another modhost{holder} already runs on the data directory {}; stop it, or give this one another \
                 directory",
                place.directory().display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn unreachable_directory(place: &Place, error: &std::io::Error) -> JournalError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => place.full(),
        _ => JournalError::Broken(format!("the data directory {} can't be used: {error}", place.directory().display())),
    }
}

/// Makes an empty journal. It gets its name when it is complete, so that a file of that name always is one.
fn create(place: &Place) -> Result<()> {
    if fs::metadata(place.wal()).is_ok_and(|wal| wal.len() > 0) {
        return Err(JournalError::Unusable(format!(
            "{} is there, but not {}, which it belongs to; bring that back, or move both away to start with an empty \
             journal",
            place.wal().display(),
            place.file().display()
        )));
    }
    let io = |error: std::io::Error| unreachable_directory(place, &error);
    let half_done = place.directory().join("journal.sqlite.new");
    match fs::remove_file(&half_done) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    create_as(&half_done).map_err(|error| place.explain(&error))?;
    fs::rename(&half_done, place.file()).map_err(io)?;
    File::open(place.directory()).and_then(|directory| directory.sync_all()).map_err(io)
}

fn create_as(path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    // Pages that are freed can be given back to the system a few at a time. Must come before the first table.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    schema::migrate(&mut connection, 0)?;
    connection.close().map_err(|(_, error)| error)
}

/// Looks at a file before anything may write to it.
fn inspect(place: &Place) -> Result<()> {
    let sql = |error: rusqlite::Error| place.explain(&error);
    let mut connection = connect_to_read(place).map_err(sql)?;
    // Not even what is in the log is brought into the file while it isn't known to be good.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql);
    if number("application_id")? != i64::from(schema::APPLICATION_ID) {
        return Err(place.not_a_journal("it is another program's SQLite database"));
    }
    let version = number("user_version")?;
    if version > schema::VERSION {
        return Err(JournalError::Unusable(format!(
            "the journal {} was written by a newer modhost: its schema is version {version}, and this one knows \
             versions up to {}; run the newer one, or give this one another data directory",
            place.file().display(),
            schema::VERSION
        )));
    }
    look_for_damage(&mut connection, place)
}

fn look_for_damage(connection: &mut Connection, place: &Place) -> Result<()> {
    let sql = |error: rusqlite::Error| place.explain(&error);
    let began = Instant::now();
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || began.elapsed() > LONGEST_CHECK)).map_err(sql)?;
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(place.damaged(&verdict)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            tracing::debug!(file = %place.file().display(), "too large a journal to be searched for damage to the end");
            Ok(())
        }
        Err(error) => Err(sql(error)),
    }
}
