//! Removes deliveries and ids whose retention time is over, in steps that are too short to delay other jobs.

use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, params};

use super::claim::numbers;
use super::store::Store;
use crate::journal::Retention;
use crate::journal::usage::{Part, id_bytes};
use modhost_core::clock::whole_millis;
use modhost_core::event::Name;

/// Maximum time in a step for removing rows.
const MAX_PURGE_TIME: Duration = Duration::from_millis(4);

/// Maximum time in a step for returning pages to the operating system.
const MAX_SHRINK_TIME: Duration = Duration::from_millis(3);

/// The number of free pages returned between two checks of the time.
const VACUUM_PAGES: u32 = 16;

/// The number of free pages that the file keeps for later writes (1 MiB).
const SPARE_PAGES: i64 = 256;

/// A query for deliveries of a lane in a final state, those that ended first before others. It names the states as the
/// partial index does, because SQLite uses the index only then.
macro_rules! ended {
    ($state:literal, $rest:literal) => {
        concat!(
            "SELECT changed_at, seq FROM deliveries INDEXED BY deliveries_ended WHERE lane = ?1 ",
            "AND state IN ('completed', 'dropped', 'dead') AND state = '",
            $state,
            "' ",
            $rest
        )
    };
}

const OLDEST_COMPLETED: &str = ended!("completed", "ORDER BY changed_at, seq LIMIT 1");
const OLDEST_DROPPED: &str = ended!("dropped", "ORDER BY changed_at, seq LIMIT 1");
const OLDEST_DEAD: &str = ended!("dead", "ORDER BY changed_at, seq LIMIT 1");

const OLD_COMPLETED: &str = ended!("completed", "AND changed_at < ?2 ORDER BY changed_at, seq LIMIT ?3");
const OLD_DROPPED: &str = ended!("dropped", "AND changed_at < ?2 ORDER BY changed_at, seq LIMIT ?3");
const OLD_DEAD: &str = ended!("dead", "AND changed_at < ?2 ORDER BY changed_at, seq LIMIT ?3");

/// The progress of one call of [`Store::purge`].
struct Step {
    began: Instant,
    /// The number of deliveries and ids removed.
    removed: u64,
    /// Their maximum number.
    batch: u64,
}

impl Step {
    /// Returns whether the step has removed enough, or has taken long enough and removed something.
    fn is_over(&self) -> bool {
        self.removed >= self.batch || self.removed > 0 && self.began.elapsed() > MAX_PURGE_TIME
    }
}

impl Store {
    /// Removes ended deliveries and ids that are old enough or for which there is no space, at most `batch` in all, and
    /// returns free pages to the operating system. Returns the number of removed deliveries and ids.
    pub(super) fn purge(&mut self, keep: &Retention, now: i64, batch: u32) -> rusqlite::Result<u64> {
        let mut step = Step { began: Instant::now(), removed: 0, batch: u64::from(batch) };
        for seq in self.too_old(keep, now, batch)? {
            if step.is_over() {
                break;
            }
            self.remove(seq)?;
            step.removed += 1;
        }
        let ids_before = now.saturating_sub(whole_millis(keep.ids));
        self.forget_old_ids(ids_before, &mut step)?;
        self.free_space(keep, ids_before, &mut step)?;
        self.shrink()?;
        Ok(step.removed)
    }

    /// Returns deliveries that are old enough to be removed, in the order they ended.
    fn too_old(&self, keep: &Retention, now: i64, batch: u32) -> rusqlite::Result<Vec<i64>> {
        let lanes = self.lane_ids();
        let mut too_old: Vec<(i64, i64)> = Vec::new();
        for (sql, kept) in [(OLD_COMPLETED, keep.completed), (OLD_DROPPED, keep.completed), (OLD_DEAD, keep.dead)] {
            let before = now.saturating_sub(whole_millis(kept));
            let mut statement = self.sql(sql)?;
            for lane in &lanes {
                let mut rows = statement.query(params![lane, before, batch])?;
                while let Some(row) = rows.next()? {
                    too_old.push((row.get(0)?, row.get(1)?));
                }
            }
        }
        too_old.sort_unstable();
        Ok(too_old.into_iter().map(|(_, seq)| seq).take(batch as usize).collect())
    }

    /// Removes records of tenants that are above their limit, and, while the file is too large, of the tenant that uses
    /// most. With a delivery, its event's id is removed if it is from before `ids_before`.
    fn free_space(&mut self, keep: &Retention, ids_before: i64, step: &mut Step) -> rusqlite::Result<()> {
        while !step.is_over() {
            let is_too_large = self.is_too_large(keep)?;
            let next = self.usage.usage().next_to_remove(&keep.tenant_limits, keep.max_bytes, is_too_large);
            let removed = match next {
                Some((tenant, Part::Ids)) => self.forget_ids(&tenant, i64::MAX, 1)?,
                Some((tenant, _)) => match self.oldest_ended(&tenant)? {
                    Some(seq) => {
                        self.remove(seq)?;
                        1 + self.forget_ids(&tenant, ids_before, u64::from(step.removed + 1 < step.batch))?
                    }
                    None => 0,
                },
                None => 0,
            };
            if removed == 0 {
                break;
            }
            step.removed += removed;
        }
        Ok(())
    }

    /// Returns the tenant's delivery that ended first: a completed or dropped one if there is any, because a dead one may
    /// be sent again.
    fn oldest_ended(&self, tenant: &Name) -> rusqlite::Result<Option<i64>> {
        let lanes = self.lanes_of(tenant);
        for queries in [&[OLDEST_COMPLETED, OLDEST_DROPPED][..], &[OLDEST_DEAD]] {
            let mut oldest: Option<(i64, i64)> = None;
            for sql in queries {
                let mut statement = self.sql(sql)?;
                for lane in &lanes {
                    let first = statement.query_row([lane], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                    oldest = oldest.into_iter().chain(first).min();
                }
            }
            if let Some((_, seq)) = oldest {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    /// Returns whether the file exceeds its maximum size, not counting free pages.
    fn is_too_large(&self, keep: &Retention) -> rusqlite::Result<bool> {
        let Some(max) = keep.max_bytes else { return Ok(false) };
        let used = self.pragma("PRAGMA page_count")? - self.pragma("PRAGMA freelist_count")?;
        let used = used.saturating_mul(self.pragma("PRAGMA page_size")?);
        Ok(u64::try_from(used).unwrap_or_default() > max)
    }

    fn pragma(&self, sql: &str) -> rusqlite::Result<i64> {
        self.sql(sql)?.query_row([], |row| row.get(0))
    }

    /// Removes an ended delivery with everything recorded about it, and its event unless the event has another
    /// delivery.
    fn remove(&mut self, seq: i64) -> rusqlite::Result<()> {
        let row = self.row_at(seq)?;
        let mut bytes = self.delivery_bytes(seq)?;
        self.forget_calls(seq, 0)?;
        self.sql("DELETE FROM attempts WHERE delivery = ?1")?.execute([seq])?;
        self.sql("DELETE FROM changes WHERE delivery = ?1")?.execute([seq])?;
        self.sql("DELETE FROM deliveries WHERE seq = ?1")?.execute([seq])?;
        self.count(row.lane, Some(row.state), None);
        let others = "SELECT 1 FROM deliveries WHERE event = ?1 AND single = 0 LIMIT 1";
        if row.is_single || !self.sql(others)?.exists([row.event])? {
            let sql = "UPDATE known_events SET event = NULL \
                       WHERE (id, source, tenant) = (SELECT id, source, tenant FROM events WHERE number = ?1) AND event = ?1";
            self.sql(sql)?.execute([row.event])?;
            if self.has_v1_keys {
                let sql = "UPDATE known_before SET event = NULL, tenant = (SELECT tenant FROM events WHERE number = ?1) \
                           WHERE (id, source) = (SELECT id, source FROM events WHERE number = ?1) AND event = ?1";
                self.sql(sql)?.execute([row.event])?;
            }
            bytes += self.event_bytes(row.event)?;
            self.sql("DELETE FROM events WHERE number = ?1")?.execute([row.event])?;
        }
        self.usage.add_to_lane(row.lane, Part::Ended, -bytes);
        Ok(())
    }

    /// Removes ids of events that were recorded before a time and whose deliveries are removed.
    fn forget_old_ids(&mut self, before: i64, step: &mut Step) -> rusqlite::Result<()> {
        let with_ids = self.usage.usage().tenants().filter(|(_, bytes)| bytes.get(Part::Ids) > 0);
        let tenants: Vec<Name> = with_ids.map(|(tenant, _)| tenant.clone()).collect();
        for tenant in tenants {
            if step.is_over() {
                return Ok(());
            }
            step.removed += self.forget_ids(&tenant, before, step.batch - step.removed)?;
        }
        if self.has_v1_keys && step.removed < step.batch {
            let sql = "DELETE FROM known_before WHERE (id, source) IN (SELECT id, source FROM known_before \
                       WHERE event IS NULL AND at < ?1 ORDER BY at LIMIT ?2)";
            let limit = (step.batch - step.removed).cast_signed();
            step.removed += self.sql(sql)?.execute(params![before, limit])? as u64;
        }
        Ok(())
    }

    /// Removes up to `limit` ids of a tenant, oldest first, that were recorded before a time and whose deliveries are
    /// removed. Returns their number.
    fn forget_ids(&mut self, tenant: &Name, before: i64, limit: u64) -> rusqlite::Result<u64> {
        let sql = "DELETE FROM known_events WHERE (id, source, tenant) IN (SELECT id, source, tenant FROM known_events \
                   INDEXED BY known_events_by_tenant WHERE tenant = ?1 AND event IS NULL AND at < ?2 \
                   ORDER BY at LIMIT ?3) RETURNING octet_length(id)";
        let lengths = numbers(self.sql(sql)?, params![tenant.as_str(), before, limit.cast_signed()])?;
        let bytes = lengths.iter().map(|length| id_bytes("").cast_signed() + length).sum::<i64>();
        self.usage.add(tenant, Part::Ids, -bytes);
        Ok(lengths.len() as u64)
    }

    /// Returns free pages to the operating system, for at most [`MAX_SHRINK_TIME`].
    fn shrink(&self) -> rusqlite::Result<()> {
        let began = Instant::now();
        while self.pragma("PRAGMA freelist_count")? > SPARE_PAGES && began.elapsed() < MAX_SHRINK_TIME {
            // The pragma returns one row per page and frees each page only when its row is read.
            let mut statement = self.sql(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }
}
