//! Reads and writes the tables.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::versions::components::Known;
use crate::versions::types::{
    Entry, EntryId, Fact, HeldBack, ModuleState, OperatorAction, Origin, Progress, Role, Tally,
};
use crate::versions::{ContentHash, MAX_ENTRIES};
use modhost_core::clock::{from_millis, to_millis};
use modhost_core::event::Name;

const ENTRY_COLUMNS: &str = "hash, role, origin, asked_by, began_at, ended_at, reason, id";

/// Records a fact in an open transaction.
pub(super) fn note(connection: &Connection, module: &Name, fact: &Fact, now: SystemTime) -> rusqlite::Result<()> {
    match fact {
        Fact::Serves { hash, origin, by } => {
            end(connection, module, Role::Serving, &format!("replaced by {hash}"), now)?;
            begin(connection, module, (*hash, Role::Serving, *origin, by.as_deref()), now)
        }
        Fact::CanaryStarted { hash } => begin(connection, module, (*hash, Role::Canary, Origin::File, None), now),
        Fact::CanaryEnded { reason } => {
            connection.execute("DELETE FROM trials WHERE module = ?1", [module.as_str()])?;
            end(connection, module, Role::Canary, reason, now)
        }
        Fact::Refused { hash, reason } => {
            begin(connection, module, (*hash, Role::Refused, Origin::File, None), now)?;
            end(connection, module, Role::Refused, reason, now)
        }
        // The file of the only host always counts.
        Fact::Offered { .. } => Ok(()),
        Fact::Pinned(pinned) => {
            let hash = pinned.as_ref().map(|(hash, _)| hash.to_hex());
            let order = pinned.as_ref().map(|(_, order)| order);
            let sql = "UPDATE modules SET pinned = ?2, pinned_at = ?3, pinned_by = ?4 WHERE module = ?1";
            ensure_module(connection, module)?;
            connection.execute(
                sql,
                params![module.as_str(), hash, order.map(|it| to_millis(it.at)), order.map(|it| &it.by)],
            )?;
            Ok(())
        }
        Fact::HeldBack(held_back) => {
            let hash = held_back.as_ref().map(|held_back| held_back.hash.to_hex());
            let why = held_back.as_ref().map(|held_back| &held_back.why);
            ensure_module(connection, module)?;
            let sql = "UPDATE modules SET held_back = ?2, held_back_why = ?3 WHERE module = ?1";
            connection.execute(sql, params![module.as_str(), hash, why])?;
            Ok(())
        }
        Fact::Paused(order) => {
            let order = order.as_ref();
            ensure_module(connection, module)?;
            let sql = "UPDATE modules SET paused_at = ?2, paused_by = ?3 WHERE module = ?1";
            connection
                .execute(sql, params![module.as_str(), order.map(|it| to_millis(it.at)), order.map(|it| &it.by)])?;
            Ok(())
        }
    }
}

/// Creates the row of a module if necessary.
fn ensure_module(connection: &Connection, module: &Name) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO modules (module) VALUES (?1) ON CONFLICT DO NOTHING", [module.as_str()])?;
    Ok(())
}

fn begin(
    connection: &Connection,
    module: &Name,
    (hash, role, origin, by): (ContentHash, Role, Origin, Option<&str>),
    now: SystemTime,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO versions (module, hash, role, origin, asked_by, began_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![module.as_str(), hash.to_hex(), role.name(), origin.name(), by, to_millis(now)];
    connection.execute(sql, values)?;
    Ok(())
}

fn end(connection: &Connection, module: &Name, role: Role, reason: &str, now: SystemTime) -> rusqlite::Result<()> {
    let sql = "UPDATE versions SET ended_at = ?3, reason = ?4 WHERE module = ?1 AND role = ?2 AND ended_at IS NULL";
    connection.execute(sql, params![module.as_str(), role.name(), to_millis(now), reason])?;
    Ok(())
}

/// Records the progress of a trial, unless the trial has ended.
pub(super) fn note_progress(
    connection: &Connection,
    module: &Name,
    trial: EntryId,
    progress: &Progress,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO trials (module, watched, runs, failed, stable_runs, stable_failed) \
               SELECT module, ?3, ?4, ?5, ?6, ?7 FROM versions \
               WHERE module = ?1 AND id = ?2 AND role = 'canary' AND ended_at IS NULL";
    let Progress { observed, tally } = progress;
    let observed = i64::try_from(observed.as_millis()).unwrap_or(i64::MAX);
    let Tally { canary_runs, canary_failed, stable_runs, stable_failed } = tally;
    let counts =
        [canary_runs, canary_failed, stable_runs, stable_failed].map(|count| i64::try_from(*count).unwrap_or(i64::MAX));
    let [runs, failed, stable_runs, stable_failed] = counts;
    let values = params![module.as_str(), trial.0, observed, runs, failed, stable_runs, stable_failed];
    connection.execute(sql, values)?;
    Ok(())
}

/// Returns the progress of the trial of a module's canary; zero if none is recorded.
fn progress(connection: &Connection, module: &Name) -> rusqlite::Result<Progress> {
    let sql = "SELECT watched, runs, failed, stable_runs, stable_failed FROM trials WHERE module = ?1";
    let read = |row: &Row<'_>| {
        let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or_default());
        let observed = Duration::from_millis(number(0)?);
        let (canary_runs, canary_failed) = (number(1)?, number(2)?);
        let (stable_runs, stable_failed) = (number(3)?, number(4)?);
        Ok(Progress { observed, tally: Tally { canary_runs, canary_failed, stable_runs, stable_failed } })
    };
    let progress = connection.prepare_cached(sql)?.query_row([module.as_str()], read).optional()?;
    Ok(progress.unwrap_or_default())
}

/// Removes the oldest ended entries of a module beyond [`MAX_ENTRIES`].
pub(super) fn forget_old(connection: &Connection, module: &Name) -> rusqlite::Result<()> {
    let sql = "DELETE FROM versions WHERE module = ?1 AND ended_at IS NOT NULL AND id <= \
               (SELECT id FROM versions WHERE module = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    connection.execute(sql, params![module.as_str(), MAX_ENTRIES])?;
    Ok(())
}

/// Returns the history of a module's versions, newest first.
pub(super) fn history(connection: &Connection, module: &Name) -> rusqlite::Result<Vec<Entry>> {
    let sql = format!("SELECT {ENTRY_COLUMNS} FROM versions WHERE module = ?1 ORDER BY id DESC");
    connection.prepare(&sql)?.query_map([module.as_str()], entry)?.collect()
}

/// Returns the state of every module.
pub(super) fn module_states(connection: &Connection) -> rusqlite::Result<HashMap<Name, ModuleState>> {
    let sql = "SELECT module FROM modules UNION SELECT module FROM versions WHERE ended_at IS NULL";
    let names =
        connection.prepare(sql)?.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let modules = names.into_iter().map(Name::from);
    modules.map(|module| module_state(connection, &module).map(|state| (module, state))).collect()
}

/// Returns the state of a module.
pub(super) fn module_state(connection: &Connection, module: &Name) -> rusqlite::Result<ModuleState> {
    let mut state = ModuleState::default();
    let sql = format!("SELECT {ENTRY_COLUMNS} FROM versions WHERE module = ?1 AND ended_at IS NULL");
    for entry in connection.prepare_cached(&sql)?.query_map([module.as_str()], entry)? {
        let entry = entry?;
        match entry.role {
            Role::Serving => state.serving = Some(entry),
            Role::Canary => state.canary = Some(entry),
            Role::Refused => {}
        }
    }
    if state.canary.is_some() {
        state.progress = progress(connection, module)?;
    }
    let sql = "SELECT pinned, pinned_at, pinned_by, held_back, held_back_why, paused_at, paused_by FROM modules \
               WHERE module = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([module.as_str()])?;
    if let Some(row) = rows.next()? {
        state.pinned = optional_hash(row, 0)?.zip(order(row, 1)?);
        let why: Option<String> = row.get(4)?;
        state.held_back = optional_hash(row, 3)?.zip(why).map(|(hash, why)| HeldBack { hash, why });
        state.paused = order(row, 5)?;
    }
    Ok(state)
}

/// Returns all recorded versions of all modules, latest first, and for each whether its component must be kept.
pub(super) fn kept_for(connection: &Connection) -> rusqlite::Result<Vec<Known>> {
    let sql = "SELECT v.module, v.hash, max(v.id), \
                      max(v.ended_at IS NULL OR v.hash IS m.pinned) \
               FROM versions v LEFT JOIN modules m ON m.module = v.module \
               GROUP BY v.module, v.hash ORDER BY max(v.id) DESC";
    let known = |row: &Row<'_>| {
        let module = Name::from(row.get::<_, String>(0)?);
        Ok(Known { module, hash: hash(row, 1)?, must_keep: row.get(3)? })
    };
    connection.prepare(sql)?.query_map([], known)?.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let word = |column| row.get::<_, String>(column);
    let ended: Option<i64> = row.get(5)?;
    Ok(Entry {
        id: EntryId(row.get(7)?),
        hash: hash(row, 0)?,
        role: Role::from_name(&word(1)?).ok_or_else(|| unknown(1))?,
        origin: Origin::from_name(&word(2)?).ok_or_else(|| unknown(2))?,
        requested_by: row.get(3)?,
        started_at: from_millis(row.get(4)?),
        ended_at: ended.map(from_millis),
        reason: row.get(6)?,
        has_component: false,
    })
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<ContentHash> {
    optional_hash(row, column)?.ok_or_else(|| unknown(column))
}

fn optional_hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ContentHash>> {
    let digits: Option<String> = row.get(column)?;
    digits.map(|digits| ContentHash::from_hex(&digits).ok_or_else(|| unknown(column))).transpose()
}

/// Reads a time and a name in two adjacent columns.
fn order(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<OperatorAction>> {
    let at: Option<i64> = row.get(column)?;
    let by: Option<String> = row.get(column + 1)?;
    Ok(at.zip(by).map(|(at, by)| OperatorAction { by, at: from_millis(at) }))
}

/// Creates the error of a value that this code never writes.
fn unknown(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "an unknown value".into())
}
