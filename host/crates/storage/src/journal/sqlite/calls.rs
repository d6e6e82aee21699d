//! The calls of deliveries. A large answer is stored once and shared by all calls that received it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::schema::JOURNAL;
use super::store::{Fault, Store};
use crate::error::StorageError;
use crate::journal::usage::{CALL_BYTES, Part, call_bytes};
use crate::journal::{Call, JournalError, Lease, Result};
use crate::sqlite::{Job, JobClass};
use modhost_core::clock::to_millis;
use modhost_core::event::Name;
use modhost_core::fair_share;
use modhost_core::sync::lock;

/// Answers larger than this are shared, in bytes.
const MIN_LARGE_ANSWER: usize = 8 * 1024;

/// Maximum size of the calls that are queued for writing, of all tenants together, in bytes. Each tenant may use a share.
const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;

/// The size counted at least for a queued change, in bytes, so that the number of changes is limited, too.
const MIN_PENDING_BYTES: usize = 16 * 1024;

/// Maximum number of queued changes that are counted with [`MIN_PENDING_BYTES`].
pub(super) const MAX_PENDING_CALLS: usize = MAX_PENDING_BYTES / MIN_PENDING_BYTES;

/// A change of a delivery's calls.
pub(super) enum Change {
    /// Writes a call.
    Write(Call),
    /// Forgets the calls from this number on.
    Forget(u32),
}

impl Change {
    /// Returns the size of what it writes, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Write(call) => call.arguments.len() + call.answer.as_ref().map_or(0, Vec::len),
            Self::Forget(_) => 0,
        }
    }

    /// Returns the number of the first call that it changes.
    fn number(&self) -> u32 {
        match self {
            Self::Write(call) => call.number,
            Self::Forget(from) => *from,
        }
    }
}

/// A call that could not be written. Later calls of the attempt are not written either, so that the call log has no
/// gap.
pub(super) struct Unwritten {
    attempt: u32,
    number: u32,
    error: JournalError,
}

/// The size of the calls that are queued for writing.
#[derive(Clone, Default)]
pub(super) struct PendingBytes(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    total: usize,
    /// Of each tenant with queued calls.
    tenants: HashMap<Name, usize>,
}

impl PendingBytes {
    /// Creates the job of a change and adds its size. A tenant may queue a single change of any size.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Full`](crate::error::StorageErrorKind::Full) if the tenant's queued calls would exceed its share
    /// of [`MAX_PENDING_BYTES`].
    pub(super) fn job(
        &self,
        lease: &Lease,
        change: Change,
        done: oneshot::Sender<Result<()>>,
    ) -> std::result::Result<CallJob, StorageError> {
        let hash = match &change {
            Change::Write(Call { answer: Some(answer), .. }) if answer.len() > MIN_LARGE_ANSWER => {
                Some(Sha256::digest(answer).into())
            }
            _ => None,
        };
        let bytes = change.bytes().max(MIN_PENDING_BYTES);
        self.add(&lease.tenant, bytes)?;
        Ok(CallJob { lease: lease.clone(), change, hash, bytes, pending: self.clone(), done: Some(done) })
    }

    fn add(&self, tenant: &Name, bytes: usize) -> std::result::Result<(), StorageError> {
        let mut pending = lock(&self.0);
        let before = pending.tenants.get(tenant).copied().unwrap_or_default();
        let (total, own) = (pending.total.saturating_add(bytes), before.saturating_add(bytes));
        if before > 0 && !fair_share::allows(MAX_PENDING_BYTES as u64, total as u64, own as u64) {
            let detail = format!(
                "{before} bytes of calls of tenant {tenant} are already waiting to be written; try again later"
            );
            return Err(StorageError::full(JOURNAL.name, detail));
        }
        pending.total = total;
        pending.tenants.insert(tenant.clone(), own);
        Ok(())
    }

    fn remove(&self, tenant: &Name, bytes: usize) {
        let mut pending = lock(&self.0);
        pending.total = pending.total.saturating_sub(bytes);
        if let Some(own) = pending.tenants.get_mut(tenant) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                pending.tenants.remove(tenant);
            }
        }
    }
}

/// A change of calls, as a job of the writer.
pub(super) struct CallJob {
    lease: Lease,
    change: Change,
    /// The SHA-256 of the answer, if it is large.
    hash: Option<[u8; 32]>,
    bytes: usize,
    pending: PendingBytes,
    done: Option<oneshot::Sender<Result<()>>>,
}

impl Drop for CallJob {
    fn drop(&mut self) {
        self.pending.remove(&self.lease.tenant, self.bytes);
    }
}

impl Job<Store> for CallJob {
    fn class(&self) -> JobClass {
        JobClass::of_module(&self.lease.tenant, self.change.bytes())
    }

    fn run(&mut self, store: &mut Store) -> std::result::Result<(), Fault> {
        let Lease { delivery, attempt, .. } = &self.lease;
        // Fencing: an attempt without the lease must not change the calls of another attempt.
        let Some((seq, lane)) = store.leased(&self.lease)? else {
            return Err(Fault::Refused(JournalError::LeaseLost(delivery.clone())));
        };
        match &self.change {
            Change::Write(call) => {
                // The caller relies on all earlier calls being durable once this one is.
                if let Some(unwritten) = store.unwritten.get(delivery).filter(|it| it.attempt == *attempt) {
                    return Err(Fault::Refused(unwritten.error.clone()));
                }
                let added = store.write_call(seq, call, self.hash.as_ref())?;
                store.usage.add_to_lane(lane, Part::Unfinished, added);
                store.running.add_bytes(delivery, added);
            }
            Change::Forget(from) => {
                let forgotten = store.forget_calls(seq, *from)?;
                store.usage.add_to_lane(lane, Part::Unfinished, -forgotten);
                store.running.add_bytes(delivery, -forgotten);
                // If the unwritten call is forgotten as well, the gap is closed. If this transaction is
                // rolled back, this job fails and `finish` records the gap again.
                store.unwritten.retain(|known, it| known != delivery || it.number < *from);
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, store: &mut Store, result: Result<()>) {
        if let Err(error) = &result
            && !matches!(error, JournalError::LeaseLost(_))
        {
            store.note_unwritten(&self.lease, self.change.number(), error);
        }
        if let Some(done) = self.done.take() {
            let _ = done.send(result); // the caller may have dropped its handle
        }
    }
}

impl Store {
    /// Records that a call could not be written. Only the first gap of the latest attempt is kept.
    fn note_unwritten(&mut self, lease: &Lease, number: u32, error: &JournalError) {
        let known = self.unwritten.get(&lease.delivery);
        if known.is_none_or(|known| known.attempt < lease.attempt) {
            let unwritten = Unwritten { attempt: lease.attempt, number, error: error.clone() };
            self.unwritten.insert(lease.delivery.clone(), unwritten);
        }
    }

    /// Writes a call. Returns by how much the size of the delivery's calls grows.
    fn write_call(&self, seq: i64, call: &Call, hash: Option<&[u8; 32]>) -> rusqlite::Result<i64> {
        let large = match (hash, &call.answer) {
            (Some(hash), Some(answer)) => Some(self.store_large(hash, answer)?),
            _ => None,
        };
        let small = if large.is_some() { None } else { call.answer.as_deref() };
        let added = call_bytes(call).cast_signed();
        let known = "SELECT c.rowid, c.large, ?3 + octet_length(c.import) + length(c.arguments) \
                     + coalesce(length(c.answer), length(a.answer), 0) \
                     FROM calls c LEFT JOIN large_answers a ON a.id = c.large WHERE c.delivery = ?1 AND c.number = ?2";
        let values = params![seq, call.number, CALL_BYTES.cast_signed()];
        let known: Option<(i64, Option<i64>, i64)> =
            self.sql(known)?.query_row(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        let at = to_millis(call.at);
        let Some((row, replaced, removed)) = known else {
            let sql = "INSERT INTO calls (delivery, number, import, arguments, at, large, answer) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = params![seq, call.number, call.import.as_str(), &call.arguments[..], at, large, small];
            self.sql(sql)?.execute(values)?;
            return Ok(added);
        };
        let sql = "UPDATE calls SET import = ?2, arguments = ?3, at = ?4, large = ?5, answer = ?6 WHERE rowid = ?1";
        self.sql(sql)?.execute(params![row, call.import.as_str(), &call.arguments[..], at, large, small])?;
        if let Some(large) = replaced {
            self.release_large(large)?;
        }
        Ok(added - removed)
    }

    /// Returns the id of a large answer, and stores the answer if it is new.
    fn store_large(&self, hash: &[u8; 32], answer: &[u8]) -> rusqlite::Result<i64> {
        let sql = "SELECT id FROM large_answers WHERE hash = ?1";
        if let Some(id) = self.sql(sql)?.query_row([&hash[..]], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        self.sql("INSERT INTO large_answers (hash, answer) VALUES (?1, ?2)")?.insert(params![&hash[..], answer])
    }

    /// Removes a large answer unless a call still refers to it.
    fn release_large(&self, large: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM large_answers WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM calls WHERE large = ?1)";
        self.sql(sql)?.execute([large]).map(drop)
    }

    /// Removes the calls of a delivery from a number on, and the large answers that no call refers to any more. Returns
    /// the size of the calls.
    pub(super) fn forget_calls(&self, seq: i64, from: u32) -> rusqlite::Result<i64> {
        let bytes = self.calls_bytes(seq, from)?;
        let sql = "SELECT large FROM calls WHERE delivery = ?1 AND number >= ?2 AND large IS NOT NULL";
        let large = super::claim::numbers(self.sql(sql)?, params![seq, from])?;
        self.sql("DELETE FROM calls WHERE delivery = ?1 AND number >= ?2")?.execute(params![seq, from])?;
        large.into_iter().try_for_each(|large| self.release_large(large))?;
        Ok(bytes)
    }
}
