//! Ends deliveries and queues them again: after an attempt, and at an operator's request.

use std::time::SystemTime;

use rusqlite::params;

use super::store::{Fault, Store};
use crate::journal::usage::{Part, attempt_bytes};
use crate::journal::{AttemptReport, Disposition, JournalError, Lease, State};
use modhost_core::clock::{to_millis, to_millis_rounded_up};
use modhost_core::event::DeliveryId;

impl Store {
    /// Records the report of an attempt and the next state of its delivery. `log` is the log of the report, as JSON.
    pub(super) fn complete_attempt(
        &mut self,
        lease: &Lease,
        report: &AttemptReport,
        log: &str,
        next: &Disposition,
        now: SystemTime,
    ) -> Result<(), Fault> {
        let Some(mut row) = self.leased_row(lease)? else {
            return Err(Fault::Refused(JournalError::LeaseLost(lease.delivery.clone())));
        };
        self.write_attempt(row.seq, lease, report, log, now)?;
        let bytes = attempt_bytes(&report.outcome, log).cast_signed();
        self.usage.add_to_lane(row.lane, Part::Unfinished, bytes);
        row.version.clone_from(&report.version);
        let (state, reason) = match next {
            Disposition::Completed => (State::Completed, None),
            Disposition::Retry { after, reason } => {
                row.due_at = to_millis_rounded_up(now.checked_add(*after).unwrap_or(now));
                row.has_due_time = true;
                (State::Waiting, Some(reason.to_string()))
            }
            Disposition::Dead { reason } => (State::Dead, Some(reason.to_string())),
            Disposition::Dropped { reason } => (State::Dropped, Some(reason.clone())),
        };
        self.unwritten.remove(&lease.delivery);
        self.transition(row, state, to_millis(now), reason.as_deref())?;
        Ok(())
    }

    fn write_attempt(
        &self,
        seq: i64,
        lease: &Lease,
        report: &AttemptReport,
        log: &str,
        ended: SystemTime,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT INTO attempts (delivery, number, owner, started, ended, version, outcome, log) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let started = ended.checked_sub(report.took).unwrap_or(ended);
        let values = params![
            seq,
            lease.attempt,
            &*lease.owner,
            to_millis(started),
            to_millis(ended),
            report.version,
            report.outcome,
            log
        ];
        self.sql(sql)?.execute(values).map(drop)
    }

    /// Queues an ended delivery again, behind the unfinished deliveries of its chat.
    pub(super) fn resend(&mut self, delivery: &DeliveryId, fresh: bool, now: i64) -> rusqlite::Result<bool> {
        let Some(mut row) = self.row(delivery)?.filter(|row| row.state.is_final()) else { return Ok(false) };
        if fresh {
            let forgotten = self.forget_calls(row.seq, 0)?;
            self.usage.add_to_lane(row.lane, Part::Ended, -forgotten);
        }
        row.blocked = match &row.chat {
            Some(chat) => self.chat_is_busy(row.lane, chat)?,
            None => false,
        };
        row.earlier_attempts = row.attempt;
        row.due_at = now;
        row.has_due_time = false;
        let reason = if fresh { "sent again, from the beginning" } else { "sent again" };
        self.transition(row, State::Waiting, now, Some(reason))?;
        Ok(true)
    }

    /// Ends a waiting delivery.
    pub(super) fn drop_waiting(&mut self, delivery: &DeliveryId, reason: &str, now: i64) -> rusqlite::Result<bool> {
        let Some(row) = self.row(delivery)?.filter(|row| row.state == State::Waiting) else { return Ok(false) };
        self.transition(row, State::Dropped, now, Some(reason))?;
        Ok(true)
    }
}
