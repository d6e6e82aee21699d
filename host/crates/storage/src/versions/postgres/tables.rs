//! Reads and writes the tables.

use std::time::{Duration, SystemTime};

use super::schema::VERSIONS;
use crate::error::StorageError;
use crate::postgres::{Failure, Row, Session, values};
use crate::versions::components::Known;
use crate::versions::types::{
    Entry, EntryId, Fact, HeldBack, ModuleState, OperatorAction, Origin, Progress, Role, Tally,
};
use crate::versions::{ContentHash, Epoch, MAX_ENTRIES, Offer};
use modhost_core::clock::to_millis;
use modhost_core::event::Name;

type Result<T> = std::result::Result<T, Failure>;

/// Maximum number of hosts whose files are known, for each module. Hosts with a data directory of their own for each life come
/// and go.
const MAX_HOSTS: i64 = 1000;

/// The state of a module, and the number of its last change.
#[derive(Clone, Debug, Default)]
pub(super) struct NumberedState {
    pub(super) state: ModuleState,
    pub(super) changed: i64,
}

/// The modules that a query is about.
pub(super) enum Which<'a> {
    /// Those with changes after this one.
    ChangedAfter(i64),
    /// One module.
    Only(&'a Name),
}

/// Begins a change: locks the record and returns the number of the change.
pub(super) async fn begin_change(session: &Session) -> Result<i64> {
    let rows = session.query("UPDATE version_clock SET number = number + 1 RETURNING number", &[]).await?;
    rows.first().map_or_else(|| Err(corrupt("the row of version_clock is missing")), |row| session.get(row, 0))
}

/// Returns the epoch of a module.
pub(super) async fn epoch(session: &Session, module: &Name) -> Result<Epoch> {
    let rows = session.query("SELECT epoch FROM version_modules WHERE module = $1", values![module.as_str()]).await?;
    let epoch: i64 = rows.first().map_or(Ok(0), |row| session.get(row, 0))?;
    Ok(Epoch(epoch.unsigned_abs()))
}

/// Records facts with a change that has begun, from the host with this name.
pub(super) async fn note(session: &Session, module: &Name, facts: &[Fact], number: i64, host: &str) -> Result<()> {
    let begins_epoch = facts.iter().any(Fact::begins_epoch);
    let sql = "INSERT INTO version_modules AS m (module, epoch, changed) VALUES ($1, CASE WHEN $3 THEN $2 ELSE 0 END, $2) \
               ON CONFLICT (module) DO UPDATE SET changed = $2, epoch = CASE WHEN $3 THEN $2 ELSE m.epoch END";
    session.execute(sql, values![module.as_str(), number, begins_epoch]).await?;
    for fact in facts {
        note_fact(session, module, fact, number, host).await?;
        if let Some(hash) = fact.hash() {
            let sql = "UPDATE components SET unrecorded_since = NULL WHERE hash = $1";
            session.execute(sql, values![hash.to_hex()]).await?;
        }
    }
    forget_old(session, module).await
}

async fn note_fact(session: &Session, module: &Name, fact: &Fact, number: i64, host: &str) -> Result<()> {
    match fact {
        Fact::Serves { hash, origin, by } => {
            end(session, module, Role::Serving, &format!("replaced by {hash}")).await?;
            begin(session, module, *hash, Role::Serving, *origin, by.as_deref()).await
        }
        Fact::CanaryStarted { hash } => begin(session, module, *hash, Role::Canary, Origin::File, None).await,
        Fact::CanaryEnded { reason } => {
            // In this order: the entry is the lock of its results.
            let sql = "UPDATE version_history SET ended_at = clock_timestamp(), reason = $2 \
                       WHERE module = $1 AND role = 'canary' AND ended_at IS NULL RETURNING id";
            for row in session.query(sql, values![module.as_str(), reason.as_str()]).await? {
                let trial: i64 = session.get(&row, 0)?;
                session.execute("DELETE FROM version_trials WHERE trial = $1", values![trial]).await?;
            }
            Ok(())
        }
        Fact::Refused { hash, reason } => {
            begin(session, module, *hash, Role::Refused, Origin::File, None).await?;
            end(session, module, Role::Refused, reason).await
        }
        Fact::Offered { hash } => {
            let sql = "INSERT INTO version_offers (module, hash, offered) VALUES ($1, $2, $3) \
                       ON CONFLICT (module, hash) DO UPDATE SET offered = $3";
            session.execute(sql, values![module.as_str(), hash.to_hex(), number]).await?;
            set_file(session, module, host, *hash, number).await
        }
        Fact::Pinned(pinned) => {
            let hash = pinned.as_ref().map(|(hash, _)| hash.to_hex());
            let order = pinned.as_ref().map(|(_, order)| order);
            let sql = "UPDATE version_modules SET pinned = $2, pinned_at = to_timestamp($3 / 1000.0), pinned_by = $4 \
                       WHERE module = $1";
            let (at, by) = (order.map(|it| to_millis(it.at)), order.map(|it| it.by.as_str()));
            session.execute(sql, values![module.as_str(), hash, at, by]).await.map(drop)
        }
        Fact::HeldBack(held_back) => {
            let hash = held_back.as_ref().map(|held_back| held_back.hash.to_hex());
            let why = held_back.as_ref().map(|held_back| held_back.why.as_str());
            let sql = "UPDATE version_modules SET held_back = $2, held_back_why = $3 WHERE module = $1";
            session.execute(sql, values![module.as_str(), hash, why]).await.map(drop)
        }
        Fact::Paused(order) => {
            let (at, by) = (order.as_ref().map(|it| to_millis(it.at)), order.as_ref().map(|it| it.by.as_str()));
            let sql =
                "UPDATE version_modules SET paused_at = to_timestamp($2 / 1000.0), paused_by = $3 WHERE module = $1";
            session.execute(sql, values![module.as_str(), at, by]).await.map(drop)
        }
    }
}

async fn begin(
    session: &Session,
    module: &Name,
    hash: ContentHash,
    role: Role,
    origin: Origin,
    by: Option<&str>,
) -> Result<()> {
    let sql = "INSERT INTO version_history (module, hash, role, origin, asked_by) VALUES ($1, $2, $3, $4, $5)";
    session.execute(sql, values![module.as_str(), hash.to_hex(), role.name(), origin.name(), by]).await.map(drop)
}

async fn end(session: &Session, module: &Name, role: Role, reason: &str) -> Result<()> {
    let sql = "UPDATE version_history SET ended_at = clock_timestamp(), reason = $3 \
               WHERE module = $1 AND role = $2 AND ended_at IS NULL";
    session.execute(sql, values![module.as_str(), role.name(), reason]).await.map(drop)
}

async fn set_file(session: &Session, module: &Name, host: &str, hash: ContentHash, offered: i64) -> Result<()> {
    let sql = "INSERT INTO version_files (module, host, hash, offered) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (module, host) DO UPDATE SET hash = $3, offered = $4";
    session.execute(sql, values![module.as_str(), host, hash.to_hex(), offered]).await.map(drop)
}

/// Removes the oldest ended entries, offers and hosts of a module.
async fn forget_old(session: &Session, module: &Name) -> Result<()> {
    let max = i64::from(MAX_ENTRIES);
    let sql = "DELETE FROM version_history WHERE module = $1 AND ended_at IS NOT NULL AND id <= \
               (SELECT id FROM version_history WHERE module = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)";
    session.execute(sql, values![module.as_str(), max]).await?;
    let sql = "DELETE FROM version_offers WHERE module = $1 AND offered <= \
               (SELECT offered FROM version_offers WHERE module = $1 ORDER BY offered DESC LIMIT 1 OFFSET $2)";
    session.execute(sql, values![module.as_str(), max]).await?;
    let sql = "DELETE FROM version_files WHERE module = $1 AND offered < \
               (SELECT offered FROM version_files WHERE module = $1 ORDER BY offered DESC LIMIT 1 OFFSET $2)";
    session.execute(sql, values![module.as_str(), MAX_HOSTS]).await.map(drop)
}

/// Returns whether the file of a host offers a version. If not, remembers that the file has it.
pub(super) async fn offer(session: &Session, module: &Name, hash: ContentHash, host: &str) -> Result<Offer> {
    let sql = "SELECT EXISTS (SELECT FROM version_history WHERE module = $1 AND role = 'serving' AND ended_at IS NULL), \
                      (SELECT offered FROM version_offers WHERE module = $1 AND hash = $2), \
                      (SELECT hash FROM version_files WHERE module = $1 AND host = $3), \
                      (SELECT offered FROM version_files WHERE module = $1 AND host = $3)";
    let rows = session.query(sql, values![module.as_str(), hash.to_hex(), host]).await?;
    let Some(row) = rows.first() else { return Ok(Offer::New) };
    let (serves, offered): (bool, Option<i64>) = (session.get(row, 0)?, session.get(row, 1)?);
    let (file, file_offered): (Option<String>, Option<i64>) = (session.get(row, 2)?, session.get(row, 3)?);
    // Without a version, any will do.
    let Some(offered) = offered.filter(|_| serves) else { return Ok(Offer::New) };
    if file.as_deref() == Some(hash.to_hex().as_str()) {
        return Ok(Offer::Known);
    }
    if file_offered.is_some_and(|before| offered <= before) {
        return Ok(Offer::New);
    }
    set_file(session, module, host, hash, offered).await?;
    Ok(Offer::Known)
}

/// Adds what one owner has seen of a trial, unless the trial has ended.
pub(super) async fn set_progress(
    session: &Session,
    module: &Name,
    trial: EntryId,
    owner: &str,
    progress: &Progress,
) -> Result<()> {
    let sql = "INSERT INTO version_trials (trial, owner, observed, runs, failed, stable_runs, stable_failed) \
               SELECT id, $3, $4, $5, $6, $7, $8 FROM version_history \
               WHERE module = $1 AND id = $2 AND role = 'canary' AND ended_at IS NULL FOR SHARE \
               ON CONFLICT (trial, owner) DO UPDATE SET observed = excluded.observed, runs = excluded.runs, \
                   failed = excluded.failed, stable_runs = excluded.stable_runs, stable_failed = excluded.stable_failed";
    let Progress { observed, tally } = progress;
    let observed = i64::try_from(observed.as_millis()).unwrap_or(i64::MAX);
    let Tally { canary_runs, canary_failed, stable_runs, stable_failed } = tally;
    let [runs, failed, stable_runs, stable_failed] =
        [canary_runs, canary_failed, stable_runs, stable_failed].map(|count| i64::try_from(*count).unwrap_or(i64::MAX));
    session
        .execute(sql, values![module.as_str(), trial.0, owner, observed, runs, failed, stable_runs, stable_failed])
        .await
        .map(drop)
}

/// Returns what all owners have seen of a trial; `None` if it has ended.
pub(super) async fn progress(session: &Session, module: &Name, trial: EntryId) -> Result<Option<Progress>> {
    let sql = "SELECT max(t.observed), sum(t.runs)::bigint, sum(t.failed)::bigint, sum(t.stable_runs)::bigint, \
                      sum(t.stable_failed)::bigint \
               FROM version_history h LEFT JOIN version_trials t ON t.trial = h.id \
               WHERE h.module = $1 AND h.id = $2 AND h.ended_at IS NULL GROUP BY h.id";
    let rows = session.query(sql, values![module.as_str(), trial.0]).await?;
    rows.first().map(|row| read_progress(session, row, 0)).transpose()
}

/// Returns the states of modules, each from one snapshot, in the order of their last changes.
pub(super) async fn module_states(session: &Session, which: Which<'_>) -> Result<Vec<(Name, NumberedState)>> {
    let (condition, after, only) = match which {
        Which::ChangedAfter(number) => ("m.changed > $1", number, ""),
        Which::Only(module) => ("$1 = 0 AND m.module = $2", 0, module.as_str()),
    };
    let sql = format!(
        "SELECT m.module, m.epoch, m.changed, m.pinned, m.pinned_at, m.pinned_by, m.held_back, m.held_back_why, \
                m.paused_at, m.paused_by, h.hash, h.role, h.origin, h.asked_by, h.began_at, h.ended_at, h.reason, h.id, \
                t.observed, t.runs, t.failed, t.stable_runs, t.stable_failed, $2::text \
         FROM version_modules m LEFT JOIN version_history h ON h.module = m.module AND h.ended_at IS NULL \
         LEFT JOIN LATERAL (SELECT max(observed) AS observed, sum(runs)::bigint AS runs, sum(failed)::bigint AS failed, \
                                   sum(stable_runs)::bigint AS stable_runs, sum(stable_failed)::bigint AS stable_failed \
                            FROM version_trials WHERE trial = h.id) t ON h.role = 'canary' \
         WHERE {condition} ORDER BY m.changed, m.module"
    );
    let mut states: Vec<(Name, NumberedState)> = Vec::new();
    for row in session.query(&sql, values![after, only]).await? {
        let module = Name::from(session.get::<String>(&row, 0)?);
        if states.last().is_none_or(|(last, _)| *last != module) {
            states.push((module, numbered_state(session, &row)?));
        }
        let Some((_, NumberedState { state, .. })) = states.last_mut() else { continue };
        if session.get::<Option<i64>>(&row, 17)?.is_none() {
            continue;
        }
        let entry = entry(session, &row, 10)?;
        match entry.role {
            Role::Serving => state.serving = Some(entry),
            Role::Canary => {
                state.canary = Some(entry);
                state.progress = read_progress(session, &row, 18)?;
            }
            Role::Refused => {}
        }
    }
    Ok(states)
}

fn numbered_state(session: &Session, row: &Row) -> Result<NumberedState> {
    let why: Option<String> = session.get(row, 7)?;
    let state = ModuleState {
        epoch: Epoch(session.get::<i64>(row, 1)?.unsigned_abs()),
        pinned: optional_hash(session, row, 3)?.zip(order(session, row, 4)?),
        held_back: optional_hash(session, row, 6)?.zip(why).map(|(hash, why)| HeldBack { hash, why }),
        paused: order(session, row, 8)?,
        ..ModuleState::default()
    };
    Ok(NumberedState { state, changed: session.get(row, 2)? })
}

/// Returns the history of a module's versions, newest first.
pub(super) async fn history(session: &Session, module: &Name) -> Result<Vec<Entry>> {
    let sql = "SELECT h.hash, h.role, h.origin, h.asked_by, h.began_at, h.ended_at, h.reason, h.id, c.hash IS NOT NULL \
               FROM version_history h LEFT JOIN components c ON c.hash = h.hash WHERE h.module = $1 ORDER BY h.id DESC";
    let rows = session.query(sql, values![module.as_str()]).await?;
    let read = |row: &Row| Ok(Entry { has_component: session.get(row, 8)?, ..entry(session, row, 0)? });
    rows.iter().map(read).collect()
}

/// Returns all recorded versions of all modules, latest first, and for each whether its component must be kept.
pub(super) async fn kept_for(session: &Session) -> Result<Vec<Known>> {
    let sql = "SELECT h.module, h.hash, bool_or(h.ended_at IS NULL OR h.hash IS NOT DISTINCT FROM m.pinned) \
               FROM version_history h LEFT JOIN version_modules m ON m.module = h.module \
               GROUP BY h.module, h.hash ORDER BY max(h.id) DESC";
    let rows = session.query(sql, &[]).await?;
    let known = |row: &Row| {
        let module = Name::from(session.get::<String>(row, 0)?);
        Ok(Known { module, hash: hash(session, row, 1)?, must_keep: session.get(row, 2)? })
    };
    rows.iter().map(known).collect()
}

/// Reads an entry of the history in adjacent columns.
fn entry(session: &Session, row: &Row, first: usize) -> Result<Entry> {
    let word = |column: usize| session.get::<String>(row, first + column);
    let (role, origin) = (word(1)?, word(2)?);
    Ok(Entry {
        id: EntryId(session.get(row, first + 7)?),
        hash: hash(session, row, first)?,
        role: Role::from_name(&role).ok_or_else(|| corrupt("unknown role of a version"))?,
        origin: Origin::from_name(&origin).ok_or_else(|| corrupt("unknown origin of a version"))?,
        requested_by: session.get(row, first + 3)?,
        started_at: session.get::<SystemTime>(row, first + 4)?,
        ended_at: session.get(row, first + 5)?,
        reason: session.get(row, first + 6)?,
        has_component: false,
    })
}

/// Reads the sums over all owners in adjacent columns, which are null if there are none.
fn read_progress(session: &Session, row: &Row, first: usize) -> Result<Progress> {
    let number = |column: usize| {
        session.get::<Option<i64>>(row, first + column).map(|number| number.unwrap_or_default().unsigned_abs())
    };
    let tally = Tally {
        canary_runs: number(1)?,
        canary_failed: number(2)?,
        stable_runs: number(3)?,
        stable_failed: number(4)?,
    };
    Ok(Progress { observed: Duration::from_millis(number(0)?), tally })
}

fn hash(session: &Session, row: &Row, column: usize) -> Result<ContentHash> {
    optional_hash(session, row, column)?.ok_or_else(|| corrupt("a version without a hash"))
}

fn optional_hash(session: &Session, row: &Row, column: usize) -> Result<Option<ContentHash>> {
    let digits: Option<String> = session.get(row, column)?;
    digits
        .map(|digits| ContentHash::from_hex(&digits).ok_or_else(|| corrupt("malformed hash of a version")))
        .transpose()
}

/// Reads a time and a name in two adjacent columns.
fn order(session: &Session, row: &Row, column: usize) -> Result<Option<OperatorAction>> {
    let at: Option<SystemTime> = session.get(row, column)?;
    let by: Option<String> = session.get(row, column + 1)?;
    Ok(at.zip(by).map(|(at, by)| OperatorAction { by, at }))
}

/// Creates the error of a value that this code never writes.
pub(super) fn corrupt(what: &str) -> Failure {
    Failure::Refused(StorageError::broken(
        VERSIONS.store,
        format!("its tables were changed by another program: {what}"),
    ))
}
