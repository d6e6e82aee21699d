//! Removes deliveries and ids whose retention time is over, in steps that are too short to delay other jobs.

use std::time::{Duration, Instant};

use rusqlite::params;

use super::store::Store;
use crate::journal::{Retention, State};
use modhost_core::clock::whole_millis;

/// Maximum time in a step for removing rows.
const MAX_PURGE_TIME: Duration = Duration::from_millis(4);

/// Maximum time in a step for returning pages to the operating system.
const MAX_SHRINK_TIME: Duration = Duration::from_millis(3);

/// The number of free pages returned between two checks of the time.
const VACUUM_PAGES: u32 = 16;

/// The number of free pages that the file keeps for later writes (1 MiB).
const SPARE_PAGES: i64 = 256;

impl Store {
    /// Removes ended deliveries and ids that are old enough, at most `batch` in all, and returns free pages to the
    /// operating system. Returns the number of removed deliveries and ids.
    pub(super) fn purge(&mut self, keep: &Retention, now: i64, batch: u32) -> rusqlite::Result<u64> {
        let began = Instant::now();
        let mut removed = 0;
        for (seq, too_old) in self.candidates(keep, now, batch)? {
            if removed > 0 && began.elapsed() > MAX_PURGE_TIME {
                break;
            }
            if too_old || self.is_too_large(keep)? {
                self.remove(seq)?;
                removed += 1;
            }
        }
        removed += self.forget_ids(now.saturating_sub(whole_millis(keep.ids)), u64::from(batch) - removed)?;
        self.shrink()?;
        Ok(removed)
    }

    /// Returns deliveries that may be removed, in the order they ended, and for each whether it is too old.
    fn candidates(&self, keep: &Retention, now: i64, batch: u32) -> rusqlite::Result<Vec<(i64, bool)>> {
        let sql = "SELECT changed_at, seq FROM deliveries WHERE state = ?1 AND changed_at < ?2 \
                   ORDER BY changed_at, seq LIMIT ?3";
        let too_large = self.is_too_large(keep)?;
        let mut candidates: Vec<(i64, i64, bool)> = Vec::new();
        for (state, kept) in
            [(State::Completed, keep.completed), (State::Dropped, keep.completed), (State::Dead, keep.dead)]
        {
            let too_old = now.saturating_sub(whole_millis(kept));
            let before = if too_large { i64::MAX } else { too_old };
            let mut statement = self.sql(sql)?;
            let mut rows = statement.query(params![state, before, batch])?;
            while let Some(row) = rows.next()? {
                let ended: i64 = row.get(0)?;
                candidates.push((ended, row.get(1)?, ended < too_old));
            }
        }
        candidates.sort_unstable();
        candidates.truncate(batch as usize);
        Ok(candidates.into_iter().map(|(_, seq, too_old)| (seq, too_old)).collect())
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
        self.forget_calls(seq, 0)?;
        self.sql("DELETE FROM attempts WHERE delivery = ?1")?.execute([seq])?;
        self.sql("DELETE FROM changes WHERE delivery = ?1")?.execute([seq])?;
        self.sql("DELETE FROM deliveries WHERE seq = ?1")?.execute([seq])?;
        self.count(row.lane, Some(row.state), None);
        if !self.sql("SELECT 1 FROM deliveries WHERE event = ?1 LIMIT 1")?.exists([row.event])? {
            let sql = "UPDATE known_events SET event = NULL \
                       WHERE (id, source, tenant) = (SELECT id, source, tenant FROM events WHERE number = ?1) AND event = ?1";
            self.sql(sql)?.execute([row.event])?;
            if self.has_v1_keys {
                let sql = "UPDATE known_before SET event = NULL, tenant = (SELECT tenant FROM events WHERE number = ?1) \
                           WHERE (id, source) = (SELECT id, source FROM events WHERE number = ?1) AND event = ?1";
                self.sql(sql)?.execute([row.event])?;
            }
            self.sql("DELETE FROM events WHERE number = ?1")?.execute([row.event])?;
        }
        Ok(())
    }

    /// Removes up to `limit` ids of events that were recorded before a time and whose deliveries are removed.
    fn forget_ids(&self, before: i64, limit: u64) -> rusqlite::Result<u64> {
        let sql = "DELETE FROM known_events WHERE (id, source, tenant) IN (SELECT id, source, tenant FROM known_events \
                   WHERE event IS NULL AND at < ?1 ORDER BY at LIMIT ?2)";
        let mut removed = self.sql(sql)?.execute(params![before, limit.cast_signed()])? as u64;
        if self.has_v1_keys && removed < limit {
            let sql = "DELETE FROM known_before WHERE (id, source) IN (SELECT id, source FROM known_before \
                       WHERE event IS NULL AND at < ?1 ORDER BY at LIMIT ?2)";
            removed += self.sql(sql)?.execute(params![before, (limit - removed).cast_signed()])? as u64;
        }
        Ok(removed)
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
