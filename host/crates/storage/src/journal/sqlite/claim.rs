//! Giving deliveries out to run, and taking them back from hosts that are gone.

use std::sync::Arc;

use rusqlite::{CachedStatement, params};

use super::column::{millis, time};
use super::delivery_row::DeliveryRow;
use super::record::{StoredEvent, event_columns};
use super::store::Store;
use crate::journal::{Claim, Claimed, State};
use modhost_core::event::{DeliveryId, Name};

/// A delivery that was given out, as it stands in the tables.
pub(super) struct ClaimedRow {
    id: DeliveryId,
    module: Name,
    event: StoredEvent,
    attempt: u32,
    earlier: u32,
    calls: u32,
}

impl From<ClaimedRow> for Claimed {
    fn from(given: ClaimedRow) -> Self {
        let received_at = time(given.event.received_at);
        Self {
            id: given.id,
            module: given.module,
            event: Arc::new(given.event.event()),
            attempt: given.attempt,
            earlier: given.earlier,
            received_at,
            calls: given.calls,
        }
    }
}

const READY: &str = "SELECT due_at, seq FROM deliveries INDEXED BY deliveries_ready \
    WHERE lane = ?1 AND state = 'waiting' AND behind = 0 AND timed = 0 ORDER BY due_at, seq LIMIT ?2";

const TIMED: &str = "SELECT due_at, seq FROM deliveries INDEXED BY deliveries_timed \
    WHERE lane = ?1 AND state = 'waiting' AND behind = 0 AND timed = 1 AND due_at <= ?3 ORDER BY due_at, seq LIMIT ?2";

impl Store {
    /// Takes what of a lane is due, and leases it.
    pub(super) fn claim(&mut self, claim: &Claim) -> rusqlite::Result<Vec<ClaimedRow>> {
        let Some(lane) = self.known_lane(&claim.tenant, &claim.module) else { return Ok(Vec::new()) };
        let now = millis(claim.now);
        let due = self.due(lane, claim.limit, now)?;
        due.into_iter().map(|seq| self.give_out(seq, claim, now)).collect()
    }

    /// The deliveries of a lane that are due, the longest waiting first.
    fn due(&self, lane: i64, limit: u32, now: i64) -> rusqlite::Result<Vec<i64>> {
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let mut due: Vec<(i64, i64)> =
            self.sql(READY)?.query_map(params![lane, limit], pair)?.collect::<rusqlite::Result<_>>()?;
        for timed in self.sql(TIMED)?.query_map(params![lane, limit, now], pair)? {
            due.push(timed?);
        }
        due.sort_unstable();
        Ok(due.into_iter().map(|(_, seq)| seq).take(limit as usize).collect())
    }

    fn give_out(&mut self, seq: i64, claim: &Claim, now: i64) -> rusqlite::Result<ClaimedRow> {
        let mut it = self.standing_of(seq)?;
        it.attempt += 1;
        it.owner = Some(claim.owner.clone());
        it.lease_until = Some(millis(claim.until));
        let given = self.given_out(&it, claim)?;
        self.unwritten.remove(&given.id);
        self.enter(it, State::Running, now, None)?;
        Ok(given)
    }

    fn given_out(&self, it: &DeliveryRow, claim: &Claim) -> rusqlite::Result<ClaimedRow> {
        // The first attempt has no calls before it.
        let calls = match it.attempt {
            ..=1 => 0,
            _ => self.sql("SELECT count(*) FROM calls WHERE delivery = ?1")?.query_row([it.seq], |row| row.get(0))?,
        };
        let sql = concat!(
            "SELECT d.id, ",
            event_columns!(),
            " FROM deliveries d JOIN events e ON e.number = d.event WHERE d.seq = ?1"
        );
        self.sql(sql)?.query_row([it.seq], |row| {
            Ok(ClaimedRow {
                id: DeliveryId::from_text(row.get::<_, String>(0)?),
                module: claim.module.clone(),
                event: StoredEvent::read(row, 1)?,
                attempt: it.attempt,
                earlier: it.earlier,
                calls,
            })
        })
    }

    /// Makes a delivery wait again whose attempt never began, at the place it had in the queue.
    pub(super) fn unclaim(
        &mut self,
        delivery: &DeliveryId,
        attempt: u32,
        owner: &str,
        now: i64,
    ) -> rusqlite::Result<bool> {
        let held = self
            .standing(delivery)?
            .filter(|it| it.state == State::Running && it.attempt == attempt && it.owner.as_deref() == Some(owner));
        let Some(mut it) = held else { return Ok(false) };
        it.attempt = it.attempt.saturating_sub(1);
        it.timed = false;
        self.enter(it, State::Waiting, now, Some("no version of its module serves"))?;
        Ok(true)
    }

    /// Prolongs the leases an owner has. Answers with those it has no longer.
    pub(super) fn heartbeat(
        &mut self,
        owner: &str,
        deliveries: &[DeliveryId],
        until: i64,
    ) -> rusqlite::Result<Vec<DeliveryId>> {
        let sql = "UPDATE deliveries SET lease_until = ?3 WHERE id = ?1 AND state = 'running' AND owner = ?2";
        let mut prolong = self.sql(sql)?;
        let mut lost = Vec::new();
        for delivery in deliveries {
            if prolong.execute(params![delivery.as_str(), owner, until])? == 0 {
                lost.push(delivery.clone());
            }
        }
        Ok(lost)
    }

    /// Makes those wait again, at the place they had in the queue, whose lease has run out or whose owner is gone.
    pub(super) fn reclaim(&mut self, gone: Option<&str>, now: i64) -> rusqlite::Result<u64> {
        let run_out = self.sql("SELECT seq FROM deliveries WHERE state = 'running' AND lease_until <= ?1")?;
        let run_out = numbers(run_out, [now])?;
        let orphaned = match gone {
            Some(owner) => {
                let sql = "SELECT seq FROM deliveries WHERE state = 'running' AND owner = ?1 AND lease_until > ?2";
                numbers(self.sql(sql)?, params![owner, now])?
            }
            None => Vec::new(),
        };
        for (seqs, reason) in
            [(&run_out, "its host did not prolong its lease"), (&orphaned, "its host stopped while it ran")]
        {
            for seq in seqs {
                let mut it = self.standing_of(*seq)?;
                it.timed = false;
                self.enter(it, State::Waiting, now, Some(reason))?;
            }
        }
        Ok((run_out.len() + orphaned.len()) as u64)
    }
}

/// What a query of one column of numbers answers.
pub(super) fn numbers(mut query: CachedStatement<'_>, values: impl rusqlite::Params) -> rusqlite::Result<Vec<i64>> {
    query.query_map(values, |row| row.get(0))?.collect()
}
