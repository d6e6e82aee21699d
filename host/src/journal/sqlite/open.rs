//! Opening a journal: one host at a time, nothing touched that isn't a journal this version can use.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};

use rusqlite::Connection;

use super::checkpoint::Checkpoints;
use super::store::Store;
use crate::journal::{JournalError, Result};
use crate::sqlite::Database;

/// What the writer needs to begin.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) checkpoints: Checkpoints,
    pub(super) lock: Lock,
    pub(super) salt: [u8; 32],
}

/// What makes the data directory this process's, for as long as it is held.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Said, not left to the closing of the file: a process that is just being started has it open too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Opens the journal in a directory, made if need be. May take seconds if it is large.
pub(super) fn open(database: &Database) -> Result<Opened> {
    fs::create_dir_all(database.directory()).map_err(|error| database.unreachable(&error))?;
    let lock = lock(database)?;
    database.make_ready()?;
    let sql = |error: rusqlite::Error| database.explain(&error);
    let mut connection = connect(database).map_err(sql)?;
    // A page cache of 32 MiB: the ids are in no order, and their index is read all over.
    connection.pragma_update(None, "cache_size", -32 * 1024).map_err(sql)?;
    let salt = salt(&connection).map_err(sql)?;
    let checkpoints = Checkpoints::start(&mut connection, database)?;
    let store = Store::new(connection, database.clone()).map_err(sql)?;
    Ok(Opened { store, checkpoints, lock, salt })
}

/// Makes sure that there is a journal this version can read, without touching it; answers with its salt.
pub(super) fn look(database: &Database) -> Result<[u8; 32]> {
    if !fs::exists(database.file()).unwrap_or(false) {
        let directory = database.directory().display();
        return Err(JournalError::Unusable(format!(
            "there is no journal in {directory}; is it a host's data directory?"
        )));
    }
    database.inspect()?;
    let salt = database.connect_to_read().and_then(|connection| salt(&connection));
    Ok(salt.map_err(|error| database.explain(&error))?)
}

fn salt(connection: &Connection) -> rusqlite::Result<[u8; 32]> {
    connection.query_row("SELECT value FROM salt", [], |row| row.get(0))
}

/// A connection that writes to an existing journal.
pub(super) fn connect(database: &Database) -> rusqlite::Result<Connection> {
    let connection = database.connect()?;
    // Who checkpoints, and when, is said in `checkpoint`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// Takes the lock that makes the data directory this process's.
fn lock(database: &Database) -> Result<Lock> {
    let path = database.directory().join("journal.lock");
    let unusable = |error: std::io::Error| database.unreachable(&error);
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
                database.directory().display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(unusable(error).into()),
    }
}
