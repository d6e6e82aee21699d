//! The calls of deliveries. A large answer is stored once, however many calls got it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::column::millis;
use super::fault::Fault;
use super::store::Store;
use super::writer::Job;
use crate::journal::{Call, JournalError, Result};
use modhost_core::event::DeliveryId;

/// Answers beyond this size, in bytes, are stored once.
const LARGE: usize = 8 * 1024;

/// How many bytes of calls may be on their way to the disk.
const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;

/// Something that is to be done to the calls of a delivery.
pub(super) enum Change {
    /// Write this one down.
    Write(Call),
    /// Forget those from this number on.
    Forget(u32),
}

/// How many bytes of calls are on their way to the disk.
#[derive(Clone, Default)]
pub(super) struct PendingBytes(Arc<AtomicUsize>);

impl PendingBytes {
    /// A change of calls for the writer, if there is room for it in memory.
    ///
    /// # Errors
    ///
    /// When too many wait for the disk already.
    pub(super) fn job(
        &self,
        delivery: &DeliveryId,
        change: Change,
        done: oneshot::Sender<Result<()>>,
    ) -> Result<CallJob> {
        let (bytes, hash) = match &change {
            Change::Write(call) => {
                let answer = call.answer.as_deref().unwrap_or_default();
                let hash = (answer.len() > LARGE).then(|| Sha256::digest(answer).into());
                (call.arguments.len() + answer.len(), hash)
            }
            Change::Forget(_) => (0, None),
        };
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        // Built before the check, so that dropping it gives the room back.
        let (delivery, on_the_way) = (delivery.clone(), self.clone());
        let job = CallJob { delivery, change, hash, bytes, of_nothing: false, on_the_way, done: Some(done) };
        if before > 0 && before + bytes > MAX_PENDING_BYTES {
            return Err(JournalError::Full(format!("{before} bytes of calls wait for the disk already")));
        }
        Ok(job)
    }
}

/// A change of calls, as a job of the writer.
pub(super) struct CallJob {
    delivery: DeliveryId,
    change: Change,
    /// The SHA-256 of the answer, if it is large.
    hash: Option<[u8; 32]>,
    bytes: usize,
    /// Whether there is no such delivery.
    of_nothing: bool,
    on_the_way: PendingBytes,
    done: Option<oneshot::Sender<Result<()>>>,
}

impl Drop for CallJob {
    fn drop(&mut self) {
        self.on_the_way.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Job for CallJob {
    fn run(&mut self, store: &mut Store) -> std::result::Result<(), Fault> {
        let Some(seq) = store.seq(&self.delivery)? else {
            let unknown = format!("there is no delivery {} to write calls of", self.delivery);
            self.of_nothing = true;
            return Err(Fault::Refused(JournalError::Broken(unknown)));
        };
        match &self.change {
            Change::Write(call) => {
                // Whoever waits for this one believes that those before it are on disk too.
                if let Some((_, error)) = store.unwritten.get(&self.delivery) {
                    return Err(Fault::Refused(error.clone()));
                }
                store.write_call(seq, call, self.hash.as_ref())?;
            }
            Change::Forget(from) => {
                store.forget_calls(seq, *from)?;
                // What is missing is to be forgotten too: those after it are written anew. Should this be taken back, it
                // fails, and `finish` notes it again.
                store.unwritten.retain(|delivery, (number, _)| *delivery != self.delivery || *number < *from);
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, store: &mut Store, ended: Result<()>) {
        let from = match &self.change {
            Change::Write(call) => call.number,
            Change::Forget(from) => *from,
        };
        if let (Err(error), false) = (&ended, self.of_nothing) {
            store.unwritten.entry(self.delivery.clone()).or_insert_with(|| (from, error.clone()));
        }
        if let Some(done) = self.done.take() {
            let _ = done.send(ended); // no one need wait for it
        }
    }
}

impl Store {
    fn write_call(&self, seq: i64, call: &Call, hash: Option<&[u8; 32]>) -> rusqlite::Result<()> {
        let large = match (hash, &call.answer) {
            (Some(hash), Some(answer)) => Some(self.keep_large(hash, answer)?),
            _ => None,
        };
        let small = if large.is_some() { None } else { call.answer.as_deref() };
        let known = "SELECT rowid, large FROM calls WHERE delivery = ?1 AND number = ?2";
        let known: Option<(i64, Option<i64>)> =
            self.sql(known)?.query_row(params![seq, call.number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let at = millis(call.at);
        let Some((row, replaced)) = known else {
            let sql = "INSERT INTO calls (delivery, number, import, arguments, at, large, answer) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = params![seq, call.number, call.import.as_str(), &call.arguments[..], at, large, small];
            return self.sql(sql)?.execute(values).map(drop);
        };
        let sql = "UPDATE calls SET import = ?2, arguments = ?3, at = ?4, large = ?5, answer = ?6 WHERE rowid = ?1";
        self.sql(sql)?.execute(params![row, call.import.as_str(), &call.arguments[..], at, large, small])?;
        replaced.map_or(Ok(()), |large| self.let_go_of_large(large))
    }

    /// The id of a large answer, stored if it is the first of its kind.
    fn keep_large(&self, hash: &[u8; 32], answer: &[u8]) -> rusqlite::Result<i64> {
        let sql = "SELECT id FROM large_answers WHERE hash = ?1";
        if let Some(id) = self.sql(sql)?.query_row([&hash[..]], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        self.sql("INSERT INTO large_answers (hash, answer) VALUES (?1, ?2)")?.insert(params![&hash[..], answer])
    }

    /// Removes a large answer that was a call's, unless another call has it too.
    fn let_go_of_large(&self, large: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM large_answers WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM calls WHERE large = ?1)";
        self.sql(sql)?.execute([large]).map(drop)
    }

    /// Forgets the calls of a delivery from a number on, and the large answers no one uses any more.
    pub(super) fn forget_calls(&self, seq: i64, from: u32) -> rusqlite::Result<()> {
        let sql = "SELECT large FROM calls WHERE delivery = ?1 AND number >= ?2 AND large IS NOT NULL";
        let large = super::claim::numbers(self.sql(sql)?, params![seq, from])?;
        self.sql("DELETE FROM calls WHERE delivery = ?1 AND number >= ?2")?.execute(params![seq, from])?;
        large.into_iter().try_for_each(|large| self.let_go_of_large(large))
    }
}
