//! The components in the database, in parts.

use std::collections::{HashMap, HashSet};

use super::tables;
use crate::error::StorageError;
use crate::postgres::{Pool, Session, read, repeatable, transaction, values};
use crate::versions::components::{Keep, choose};
use crate::versions::{ContentHash, Result};

/// The size of a part, in bytes. A part is a row, which is in memory as a whole, on both sides.
pub(crate) const PART: usize = 1 << 20;

/// How long a component is kept that no version in the history has, in seconds. A host records its version long before.
const UNRECORDED_SECONDS: i64 = 24 * 60 * 60;

/// Keeps a component: uploads it, unless the database has it. Returns whether it was uploaded. Nothing removes it until its
/// version is recorded.
pub(super) async fn keep(pool: &Pool, hash: ContentHash, bytes: &[u8]) -> Result<bool> {
    let digits = hash.to_hex();
    let sql = "UPDATE components SET unrecorded_since = now() WHERE hash = $1";
    let kept = repeatable!(*pool, session => session.execute(sql, values![digits]).await)?;
    if kept > 0 {
        return Ok(false);
    }
    // Each part for itself: an upload that was interrupted goes on where it was, and two hosts may upload the same.
    let mut parts = 0_i32;
    for part in bytes.chunks(PART) {
        let sql = "INSERT INTO component_parts (hash, part, bytes) VALUES ($1, $2, $3) \
                   ON CONFLICT (hash, part) DO UPDATE SET kept_at = now()";
        repeatable!(*pool, session => session.execute(sql, values![digits, parts, part]).await)?;
        parts += 1;
    }
    let sql = "INSERT INTO components (hash, size, parts, unrecorded_since) SELECT $1, $2, $3, now() \
               WHERE (SELECT count(*) FROM component_parts WHERE hash = $1) = $3 \
               ON CONFLICT (hash) DO UPDATE SET unrecorded_since = now()";
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    let complete = repeatable!(*pool, session => session.execute(sql, values![digits, size, parts]).await)?;
    if complete == 0 {
        let detail = format!("parts of the component of version {hash} were removed while it was written; try again");
        return Err(StorageError::unavailable(pool.store(), detail));
    }
    Ok(true)
}

/// Returns the bytes of a component; `None` if the database has none that match the hash.
pub(super) async fn read(pool: &Pool, hash: ContentHash) -> Result<Option<Vec<u8>>> {
    let digits = hash.to_hex();
    let sql = "SELECT size, parts FROM components WHERE hash = $1";
    let found = read!(*pool, session => {
        let rows = session.query(sql, values![digits]).await?;
        rows.first().map(|row| Ok((session.get::<i64>(row, 0)?, session.get::<i32>(row, 1)?))).transpose()
    })?;
    let Some((size, parts)) = found else { return Ok(None) };
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    for part in 0..parts {
        let sql = "SELECT bytes FROM component_parts WHERE hash = $1 AND part = $2";
        let found = read!(*pool, session => {
            let rows = session.query(sql, values![digits, part]).await?;
            rows.first().map(|row| session.get::<Vec<u8>>(row, 0)).transpose()
        })?;
        // Removed while it was read.
        let Some(found) = found else { return Ok(None) };
        bytes.extend(found);
    }
    let (hashed, bytes) = tokio::task::spawn_blocking(move || (ContentHash::of(&bytes), bytes))
        .await
        .map_err(|error| StorageError::broken(pool.store(), error.to_string()))?;
    if hashed == hash {
        return Ok(Some(bytes));
    }
    tracing::error!(version = %hash, "component in PostgreSQL does not match its hash; removing it");
    transaction!(*pool, session => remove(session, &[digits.as_str()]).await)?;
    Ok(None)
}

/// Removes the components that have no version in the record and, beyond the limits, those of the versions recorded longest
/// ago. Returns the number of removed ones.
pub(super) async fn purge(pool: &Pool, keep: &Keep) -> Result<usize> {
    transaction!(*pool, session => {
        // Until the end of this transaction, no host records a version that needs one of them.
        session.query("SELECT number FROM version_clock FOR UPDATE", &[]).await?;
        let sql = "SELECT hash, size, \
                          coalesce(unrecorded_since > now() - $1 * interval '1 second', false) FROM components";
        let (mut sizes, mut unrecorded) = (HashMap::new(), HashSet::new());
        for row in session.query(sql, values![UNRECORDED_SECONDS]).await? {
            let digits: String = session.get(&row, 0)?;
            let hash =
                ContentHash::from_hex(&digits).ok_or_else(|| tables::corrupt("malformed hash of a component"))?;
            sizes.insert(hash, session.get::<i64>(&row, 1)?.unsigned_abs());
            if session.get(&row, 2)? {
                unrecorded.insert(hash);
            }
        }
        let wanted = choose(keep, &sizes, &unrecorded, tables::kept_for(session).await?);
        let gone: Vec<String> = sizes.keys().filter(|hash| !wanted.contains(hash)).map(|hash| hash.to_hex()).collect();
        let digits: Vec<&str> = gone.iter().map(String::as_str).collect();
        remove(session, &digits).await?;
        let sql = "DELETE FROM component_parts p WHERE p.kept_at < now() - $1 * interval '1 second' \
                   AND NOT EXISTS (SELECT FROM components c WHERE c.hash = p.hash)";
        session.execute(sql, values![UNRECORDED_SECONDS]).await?;
        Ok(gone.len())
    })
}

async fn remove(session: &Session, digits: &[&str]) -> std::result::Result<(), crate::postgres::Failure> {
    if digits.is_empty() {
        return Ok(());
    }
    for sql in ["DELETE FROM components WHERE hash = ANY ($1)", "DELETE FROM component_parts WHERE hash = ANY ($1)"] {
        session.execute(sql, values![digits.to_vec()]).await?;
    }
    Ok(())
}
