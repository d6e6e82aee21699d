//! What becomes of a delivery: after an attempt, and when a person says so.

use rusqlite::params;

use super::column::{millis, millis_up};
use super::fault::Fault;
use super::store::Store;
use crate::journal::{Attempt, Disposition, JournalError, State};
use modhost_core::event::DeliveryId;

impl Store {
    /// Writes down how an attempt went, with its log as JSON, and what is next for its delivery.
    pub(super) fn complete_attempt(
        &mut self,
        delivery: &DeliveryId,
        attempt: &Attempt,
        log: &str,
        next: &Disposition,
    ) -> Result<(), Fault> {
        let held = self.standing(delivery)?.filter(|it| {
            it.state == State::Running && it.attempt == attempt.number && it.owner.as_ref() == Some(&attempt.owner)
        });
        let Some(mut it) = held else {
            return Err(Fault::Refused(JournalError::LeaseLost(delivery.clone())));
        };
        self.write_attempt(it.seq, attempt, log)?;
        it.version.clone_from(&attempt.version);
        let (state, reason) = match next {
            Disposition::Completed => (State::Completed, None),
            Disposition::Retry { at, reason } => {
                it.due_at = millis_up(*at);
                it.timed = true;
                (State::Waiting, Some(reason.to_string()))
            }
            Disposition::Dead { reason } => (State::Dead, Some(reason.to_string())),
            Disposition::Dropped { reason } => (State::Dropped, Some(reason.clone())),
        };
        self.unwritten.remove(delivery);
        self.enter(it, state, millis(attempt.ended), reason.as_deref())?;
        Ok(())
    }

    fn write_attempt(&self, seq: i64, attempt: &Attempt, log: &str) -> rusqlite::Result<()> {
        let sql = "INSERT INTO attempts (delivery, number, owner, started, ended, version, outcome, log) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![
            seq,
            attempt.number,
            attempt.owner,
            millis(attempt.started),
            millis(attempt.ended),
            attempt.version,
            attempt.outcome,
            log
        ];
        self.sql(sql)?.execute(values).map(drop)
    }

    /// Makes a delivery that has ended wait again, behind whatever else of its chat has not ended.
    pub(super) fn resend(&mut self, delivery: &DeliveryId, fresh: bool, now: i64) -> rusqlite::Result<bool> {
        let Some(mut it) = self.standing(delivery)?.filter(|it| it.state.is_final()) else { return Ok(false) };
        if fresh {
            self.forget_calls(it.seq, 0)?;
        }
        it.behind = match &it.chat {
            Some(chat) => self.chat_is_busy(it.lane, chat)?,
            None => false,
        };
        it.earlier = it.attempt;
        it.due_at = now;
        it.timed = false;
        let reason = if fresh { "sent again, from the beginning" } else { "sent again" };
        self.enter(it, State::Waiting, now, Some(reason))?;
        Ok(true)
    }

    /// Ends a delivery that waits.
    pub(super) fn drop_waiting(&mut self, delivery: &DeliveryId, reason: &str, now: i64) -> rusqlite::Result<bool> {
        let Some(it) = self.standing(delivery)?.filter(|it| it.state == State::Waiting) else { return Ok(false) };
        self.enter(it, State::Dropped, now, Some(reason))?;
        Ok(true)
    }
}
