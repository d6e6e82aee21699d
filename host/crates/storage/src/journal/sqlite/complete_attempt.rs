//! Ends deliveries and queues them again: after an attempt, and at an operator's request.

use std::time::SystemTime;

use super::store::{Fault, Store};
use crate::journal::usage::{Part, attempt_bytes};
use crate::journal::{AttemptReport, Disposition, JournalError, Lease, State};
use modhost_core::clock::to_millis_rounded_up;
use modhost_core::event::DeliveryId;

impl Store {
    /// Records the report of an attempt and the next state of its delivery. `log` is the log of the report, as JSON. Returns
    /// whether the next delivery of its chat can be claimed now.
    pub(super) fn complete_attempt(
        &mut self,
        lease: &Lease,
        report: &AttemptReport,
        log: &str,
        next: &Disposition,
        now: SystemTime,
    ) -> Result<bool, Fault> {
        let Some(mut row) = self.leased_row(lease)? else {
            return Err(Fault::Refused(JournalError::LeaseLost(lease.delivery.clone())));
        };
        let bytes = attempt_bytes(&report.outcome, log).cast_signed();
        self.usage.add_to_lane(row.lane, Part::Unfinished, bytes);
        self.running.add_bytes(&row.id, bytes);
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
        Ok(self.complete(row, state, report, log, now, reason.as_deref())?)
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
