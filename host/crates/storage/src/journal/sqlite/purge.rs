//! Removing what need not be kept, in steps so small that no one waits for them.

use std::time::{Duration, Instant};

use rusqlite::params;

use super::column::whole_millis;
use super::store::Store;
use crate::journal::{Retention, State};

/// How long a step may go on removing.
const MAX_PURGE_TIME: Duration = Duration::from_millis(4);

/// How long a step may go on giving room back.
const MAX_SHRINK_TIME: Duration = Duration::from_millis(3);

/// How many free pages are given back before it is looked at the clock.
const PAGES_AT_ONCE: u32 = 16;

/// How many free pages the file keeps, for what comes next (1 MiB).
const SPARE_PAGES: i64 = 256;

impl Store {
    /// Removes deliveries that ended and ids that are old enough, `batch` at the most together, and gives room back.
    /// Answers with how many went; none if none need go.
    pub(super) fn retain(&mut self, keep: &Retention, now: i64, batch: u32) -> rusqlite::Result<u64> {
        let began = Instant::now();
        let mut gone = 0;
        for (seq, too_old) in self.candidates(keep, now, batch)? {
            if gone > 0 && began.elapsed() > MAX_PURGE_TIME {
                break;
            }
            if too_old || self.is_too_large(keep)? {
                self.remove(seq)?;
                gone += 1;
            }
        }
        gone += self.forget_ids(now.saturating_sub(whole_millis(keep.ids)), u64::from(batch) - gone)?;
        self.shrink()?;
        Ok(gone)
    }

    /// Deliveries that may go, the one that ended first at the front, and whether each of them has to.
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

    /// Whether more is used of the file than may be. Pages that are free already don't count.
    fn is_too_large(&self, keep: &Retention) -> rusqlite::Result<bool> {
        let Some(most) = keep.max_bytes else { return Ok(false) };
        let used = self.pragma("PRAGMA page_count")? - self.pragma("PRAGMA freelist_count")?;
        let used = used.saturating_mul(self.pragma("PRAGMA page_size")?);
        Ok(u64::try_from(used).unwrap_or_default() > most)
    }

    fn pragma(&self, sql: &str) -> rusqlite::Result<i64> {
        self.sql(sql)?.query_row([], |row| row.get(0))
    }

    /// Removes a delivery that has ended, with all that belongs to it; and its event, if that has no other.
    fn remove(&mut self, seq: i64) -> rusqlite::Result<()> {
        let it = self.standing_of(seq)?;
        self.forget_calls(seq, 0)?;
        self.sql("DELETE FROM attempts WHERE delivery = ?1")?.execute([seq])?;
        self.sql("DELETE FROM changes WHERE delivery = ?1")?.execute([seq])?;
        self.sql("DELETE FROM deliveries WHERE seq = ?1")?.execute([seq])?;
        self.count(it.lane, Some(it.state), None);
        if !self.sql("SELECT 1 FROM deliveries WHERE event = ?1 LIMIT 1")?.exists([it.event])? {
            let sql = "UPDATE known_events SET event = NULL \
                       WHERE (id, source, tenant) = (SELECT id, source, tenant FROM events WHERE number = ?1) AND event = ?1";
            self.sql(sql)?.execute([it.event])?;
            if self.knows_before {
                let sql = "UPDATE known_before SET event = NULL, tenant = (SELECT tenant FROM events WHERE number = ?1) \
                           WHERE (id, source) = (SELECT id, source FROM events WHERE number = ?1) AND event = ?1";
                self.sql(sql)?.execute([it.event])?;
            }
            self.sql("DELETE FROM events WHERE number = ?1")?.execute([it.event])?;
        }
        Ok(())
    }

    /// Forgets the ids of events that are gone and were recorded before a time, `most` of them.
    fn forget_ids(&self, before: i64, most: u64) -> rusqlite::Result<u64> {
        let sql = "DELETE FROM known_events WHERE (id, source, tenant) IN (SELECT id, source, tenant FROM known_events \
                   WHERE event IS NULL AND at < ?1 ORDER BY at LIMIT ?2)";
        let mut gone = self.sql(sql)?.execute(params![before, most.cast_signed()])? as u64;
        if self.knows_before && gone < most {
            let sql = "DELETE FROM known_before WHERE (id, source) IN (SELECT id, source FROM known_before \
                       WHERE event IS NULL AND at < ?1 ORDER BY at LIMIT ?2)";
            gone += self.sql(sql)?.execute(params![before, (most - gone).cast_signed()])? as u64;
        }
        Ok(gone)
    }

    /// Gives free pages back to the system, for a while.
    fn shrink(&self) -> rusqlite::Result<()> {
        let began = Instant::now();
        while self.pragma("PRAGMA freelist_count")? > SPARE_PAGES && began.elapsed() < MAX_SHRINK_TIME {
            // One page a row: it has to be asked for all of them.
            let mut statement = self.sql(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }
}
