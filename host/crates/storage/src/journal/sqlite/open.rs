//! Opening a journal: one host at a time, nothing touched that isn't a journal this version can use.

use std::fs;

use rusqlite::Connection;

use super::checkpoint::Checkpoints;
use super::store::Store;
use crate::journal::{JournalError, Result};
use crate::sqlite::{Database, DirectoryLock, Mark};

/// What the writer needs to begin.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) checkpoints: Checkpoints,
    pub(super) lock: DirectoryLock,
    pub(super) salt: [u8; 32],
}

/// Opens the journal in a directory, made if need be. May take seconds if it is large.
pub(super) fn open(database: &Database) -> Result<Opened> {
    fs::create_dir_all(database.directory()).map_err(|error| database.unreachable(&error))?;
    let lock = DirectoryLock::take(database.directory())?;
    database.make_ready()?;
    let sql = |error: rusqlite::Error| database.explain(&error);
    let mut connection = connect(database).map_err(sql)?;
    // A page cache of 32 MiB: the ids are in no order, and their index is read all over.
    connection.pragma_update(None, "cache_size", -32 * 1024).map_err(sql)?;
    let salt = salt(&connection).map_err(sql)?;
    let checkpoints = Checkpoints::start(&mut connection, database)?;
    let mark = Mark::open(database, &connection)?;
    let store = Store::new(connection, database.clone(), mark).map_err(sql)?;
    Ok(Opened { store, checkpoints, lock, salt })
}

/// Makes sure that there is a journal this version can read, without touching it; answers with its salt, and with what it has
/// lost.
pub(super) fn look(database: &Database) -> Result<([u8; 32], Option<String>)> {
    if !fs::exists(database.file()).unwrap_or(false) {
        let directory = database.directory().display();
        return Err(JournalError::Unusable(format!(
            "there is no journal in {directory}; is it a host's data directory?"
        )));
    }
    database.inspect()?;
    let sql = |error: rusqlite::Error| database.explain(&error);
    let connection = database.connect_to_read().map_err(sql)?;
    Ok((salt(&connection).map_err(sql)?, database.missing(&connection)?))
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
