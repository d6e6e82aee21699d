//! The record of a delivery's calls: what is replayed when the delivery starts again, and what is written as it goes.
//!
//! Calls are matched in order. As long as the guest asks what it asked before, it gets the answers it got before and
//! nothing leaves the host. At the first call that differs the record is cut off there, and the rest runs live. What an
//! earlier attempt made that can't be unmade (a step, a message) is kept aside: asked for in the same words, it is found
//! again rather than made twice.

mod state;
mod types;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::to_raw_value;

use super::UsageMeter;
use super::delivery::CallEffect;
use modhost_core::event::DeliveryId;
use modhost_core::limits::Limits;
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::journal::{Call, CommitHandle, Journal, JournalError};
use state::{CLOCK, KEPT_ASIDE, Made, State};
pub use types::{Answer, CallRequest, Lookup};
pub(super) use types::{Place, Turn};
use types::{unwritable, value};

/// The calls that make something which would stand there twice if they were made again.
const MAKING: [&str; 2] = [super::message_log::CREATE, super::messages::CREATE];

/// How many bytes the reading of a clock takes in the record: nanoseconds, in digits.
const READING_BYTES: u64 = 20;

/// The record of one delivery's calls.
pub struct CallLog {
    delivery: DeliveryId,
    journal: Option<Arc<dyn Journal>>,
    dry_run: bool,
    /// Where the wall clock stands; none: it goes by the machine's.
    clock: Option<SystemTime>,
    usage: UsageMeter,
    state: Mutex<State>,
}

impl CallLog {
    /// The record of a delivery with what earlier attempts left in it.
    pub fn new(journal: Arc<dyn Journal>, delivery: DeliveryId, recorded: Vec<Call>) -> Self {
        Self::with(Some(journal), delivery, recorded, false)
    }

    /// A record that is read and never written, for code that may ask other things than what is in it.
    pub fn dry_run(delivery: DeliveryId, recorded: Vec<Call>) -> Self {
        Self::with(None, delivery, recorded, true)
    }

    /// No record at all: every call is made, and none is written down.
    pub fn off(delivery: DeliveryId) -> Self {
        Self::with(None, delivery, Vec::new(), false)
    }

    fn with(journal: Option<Arc<dyn Journal>>, delivery: DeliveryId, recorded: Vec<Call>, dry_run: bool) -> Self {
        let mut state = State {
            ahead: VecDeque::new(),
            readings_ahead: VecDeque::new(),
            kept_aside: Vec::new(),
            afresh: false,
            next: 0,
            readings: Vec::new(),
            bytes: 0,
            again: 0,
            failed: Vec::new(),
            asked: Vec::new(),
            answering: None,
            revoked: false,
        };
        for call in recorded {
            state.load(call);
        }
        let usage = UsageMeter::new(Limits::default());
        Self { delivery, journal, dry_run, clock: None, usage, state: Mutex::new(state) }
    }

    /// Lets the wall clock stand at this time, so that whoever reads it gets the same whenever this is played.
    pub fn standing_at(mut self, time: SystemTime) -> Self {
        self.clock = Some(time);
        self
    }

    /// In a dry run, lets calls that have no record be answered by somebody, who is given their names and arguments and
    /// answers in the record's form.
    pub fn answered_by(mut self, answering: impl FnMut(&str, &Value) -> Option<Vec<u8>> + Send + 'static) -> Self {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).answering = Some(Box::new(answering));
        self
    }

    /// What the wall clock says, where the record has no reading of it.
    pub(super) fn wall_time(&self) -> SystemTime {
        self.clock.unwrap_or_else(SystemTime::now)
    }

    /// Holds its calls against these limits rather than the default ones.
    #[must_use]
    pub fn limited(self, limits: Limits) -> Self {
        Self { usage: UsageMeter::new(limits), ..self }
    }

    /// The delivery.
    pub fn delivery(&self) -> &DeliveryId {
        &self.delivery
    }

    /// What its calls have used.
    pub fn usage(&self) -> &UsageMeter {
        &self.usage
    }

    /// Whether this is a dry run: whatever is not on record is made up, and nothing may leave the host.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Replays nothing: what is recorded only says what was shown to the user. What was made is found again all the same.
    pub fn start_afresh(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.readings_ahead.clear();
        state.afresh = true;
    }

    /// Makes calls that failed again rather than hear of the failure once more: a person has sent the delivery again, and
    /// will have seen to what was wrong.
    pub fn make_failed_calls_again(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for entry in &mut state.ahead {
            if entry.answer.as_ref().is_some_and(|answer| answer.error().is_some()) {
                entry.answer = Some(Answer::Again);
            }
        }
    }

    /// Every answer on record, import by import: what earlier attempts have done.
    pub(super) fn answers(&self) -> Vec<(String, Value)> {
        let state = self.state();
        let recorded = state.ahead.iter().filter_map(|entry| match &entry.answer {
            Some(Answer::Ok(answer)) => Some((entry.import.clone(), value(answer))),
            _ => None,
        });
        let aside = state.kept_aside.iter().map(|made| (made.import.clone(), made.answer.clone()));
        recorded.chain(aside).collect()
    }

    /// Finds out whether a call was made before; takes its place in the record.
    ///
    /// # Errors
    ///
    /// When the record is full.
    pub(super) fn turn(&self, effect: CallEffect, import: &'static str, arguments: &[u8]) -> Result<Turn, CallError> {
        let mut state = self.state();
        if self.dry_run {
            return Ok(state.dry_run(effect, import, arguments));
        }
        if !state.afresh
            && let Some(turn) = state.replay(effect, import, arguments)
        {
            return Ok(turn);
        }
        if !state.ahead.is_empty() {
            self.cut(&mut state)?;
        }
        if MAKING.contains(&import)
            && let Some(found) = state.take_made(import, arguments)
        {
            let place = state.place()?;
            let answer = Answer::Ok(to_raw_value(&found.answer).map_err(unwritable)?);
            drop(self.write(&mut state, place, import, arguments, Some(&answer))?);
            return Ok(Turn::Replayed(place, answer));
        }
        Ok(Turn::Live(state.place()?))
    }

    /// Writes down that a call is about to be made, without waiting.
    pub(super) fn begin(
        &self,
        place: Place,
        import: &'static str,
        arguments: &[u8],
    ) -> Result<CommitHandle, CallError> {
        let mut state = self.state();
        self.write_readings(&mut state)?;
        self.write(&mut state, place, import, arguments, None)
    }

    /// Writes an answer down, without waiting.
    pub(super) fn end<T: Serialize>(
        &self,
        place: Place,
        import: &'static str,
        arguments: &[u8],
        answer: &Result<T, CallError>,
    ) -> Result<CommitHandle, CallError> {
        if self.journal.is_none() && !self.dry_run {
            return Ok(CommitHandle::already());
        }
        self.end_with(place, import, arguments, &Answer::of(answer)?)
    }

    /// [`CallLog::end`], with an answer in the record's own form.
    pub(super) fn end_with(
        &self,
        place: Place,
        import: &'static str,
        arguments: &[u8],
        answer: &Answer,
    ) -> Result<CommitHandle, CallError> {
        let mut state = self.state();
        // In a dry run, a call's place is its place among those asked for.
        if self.dry_run
            && let Some(asked) = state.asked.get_mut(place.number as usize)
        {
            asked.answer = answer.clone().taken_apart();
        }
        state.remember_failure(place, import, arguments, answer);
        self.write(&mut state, place, import, arguments, Some(answer))
    }

    /// Counts a replayed call among those that failed and may succeed another time.
    pub(super) fn make_again(&self, place: Place, import: &'static str, arguments: &[u8]) {
        self.state().failed.push((place, import.to_owned(), arguments.to_vec()));
    }

    /// Lets the next attempt make those calls again that failed and may succeed then, rather than hear of the failure
    /// once more.
    ///
    /// # Errors
    ///
    /// When the journal takes nothing more.
    pub fn forgive(&self) -> Result<(), CallError> {
        let mut state = self.state();
        for (place, import, arguments) in std::mem::take(&mut state.failed) {
            drop(self.write(&mut state, place, &import, &arguments, Some(&Answer::Again))?);
        }
        Ok(())
    }

    /// Writes nothing more: the delivery is another attempt's, and so is its record. Calls that are still under way are
    /// carried to their end, but neither they nor any other can write an answer, and none begins.
    pub fn revoke(&self) {
        self.state().revoked = true;
    }

    /// A reading of a clock: the recorded one, or the real one, which is recorded.
    pub(super) fn reading(&self, real: impl FnOnce() -> u64) -> u64 {
        let mut state = self.state();
        if let Some(reading) = state.readings_ahead.pop_front() {
            return reading;
        }
        let reading = real();
        if self.journal.is_some() {
            let bytes = state.bytes + (state.readings.len() + 1) as u64 * READING_BYTES;
            // A guest that is told the time has no error to look at; it is ended all the same.
            if self.usage.check_journal(bytes).is_ok() {
                state.readings.push(reading);
            }
        }
        reading
    }

    /// Whether what is asked of the clocks is still answered from the record.
    pub(super) fn replays_clocks(&self) -> bool {
        !self.state().readings_ahead.is_empty()
    }

    /// How many calls were made a second time because it is not known whether they had happened.
    pub fn made_again(&self) -> u32 {
        self.state().again
    }

    /// The recorded calls nobody has asked for, in order: what was called, and its arguments.
    pub fn left(&self) -> Vec<(String, Value)> {
        let state = self.state();
        let left = state.ahead.iter();
        left.map(|entry| (entry.import.clone(), serde_json::from_slice(&entry.arguments).unwrap_or_default())).collect()
    }

    /// The calls asked for in a dry run, in order.
    pub fn asked(&self) -> Vec<CallRequest> {
        self.state().asked.clone()
    }

    /// Cuts the record off where the guest has left it: what follows is new. What can't be unmade is kept aside.
    fn cut(&self, state: &mut State) -> Result<(), CallError> {
        let Some(from) = state.ahead.front().map(|entry| entry.number) else { return Ok(()) };
        for entry in std::mem::take(&mut state.ahead) {
            if let (true, Some(Answer::Ok(answer))) = (MAKING.contains(&&*entry.import), entry.answer) {
                let arguments = serde_json::from_slice(&entry.arguments).unwrap_or_default();
                state.kept_aside.push(Made { import: entry.import, arguments, answer: value(&answer) });
            }
        }
        state.readings_ahead.clear();
        state.next = from;
        let Some(journal) = &self.journal else { return Ok(()) };
        self.check_lease(state)?;
        tracing::debug!(delivery = %self.delivery, from, "the module asks for other things than before: the rest runs live");
        // Nothing waits for these two: whatever is written next is on disk after them.
        drop(journal.forget(&self.delivery, from).map_err(broken)?);
        if !state.kept_aside.is_empty() {
            let aside = to_raw_value(&state.kept_aside).map_err(unwritable)?;
            let place = state.place()?;
            drop(self.write(state, place, KEPT_ASIDE, b"null", Some(&Answer::Ok(aside)))?);
        }
        Ok(())
    }

    fn check_lease(&self, state: &State) -> Result<(), CallError> {
        if state.revoked { Err(broken(JournalError::LeaseLost(self.delivery.clone()))) } else { Ok(()) }
    }

    fn write_readings(&self, state: &mut State) -> Result<(), CallError> {
        if state.readings.is_empty() {
            return Ok(());
        }
        let readings = to_raw_value(&std::mem::take(&mut state.readings)).map_err(unwritable)?;
        let place = state.place()?;
        drop(self.write(state, place, CLOCK, b"null", Some(&Answer::Ok(readings)))?);
        Ok(())
    }

    fn write(
        &self,
        state: &mut State,
        place: Place,
        import: &str,
        arguments: &[u8],
        answer: Option<&Answer>,
    ) -> Result<CommitHandle, CallError> {
        let Some(journal) = &self.journal else { return Ok(CommitHandle::already()) };
        self.check_lease(state)?;
        let answer = answer.map(serde_json::to_vec).transpose().map_err(unwritable)?;
        let of_answer = answer.as_ref().map_or(0, Vec::len);
        if ![CLOCK, KEPT_ASIDE].contains(&import) {
            self.usage.check_answer(of_answer)?;
        }
        let bytes = state.bytes.saturating_add((arguments.len() + of_answer) as u64);
        self.usage.check_journal(bytes)?;
        state.bytes = bytes;
        let (import, arguments) = (import.to_owned(), arguments.to_vec());
        let call = Call { number: place.number, import, arguments, answer, at: place.begun };
        journal.write(&self.delivery, call).map_err(broken)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until what was written is on disk.
pub(super) async fn on_disk(written: CommitHandle) -> Result<(), CallError> {
    written.on_disk().await.map_err(broken)
}

fn broken(error: JournalError) -> CallError {
    CallError::new(ErrorKind::Unavailable, error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::capabilities::message_log::CREATE;

    fn recorded(number: u32, import: &str, arguments: &[u8], answer: Value) -> Call {
        let answer = serde_json::to_vec(&Answer::Ok(to_raw_value(&answer).unwrap())).unwrap();
        let (import, arguments) = (import.to_owned(), arguments.to_vec());
        Call { number, import, arguments, answer: Some(answer), at: SystemTime::UNIX_EPOCH }
    }

    /// A step was kept aside, asked for again, and the attempt cut off: the next one may ask for two in the same words.
    #[test]
    fn what_was_kept_aside_is_found_once() {
        let (arguments, step) = (json!(["Working…", "RUNNING"]), json!({ "id": "step_1" }));
        let made = json!([{ "import": CREATE, "arguments": arguments, "answer": step }]);
        let arguments = arguments.to_string().into_bytes();
        let calls = vec![recorded(0, KEPT_ASIDE, b"null", made), recorded(1, CREATE, &arguments, step)];
        let call_log = CallLog::with(None, DeliveryId::from_text("dlv_1"), calls, false);
        assert!(matches!(call_log.turn(CallEffect::Change, CREATE, &arguments), Ok(Turn::Replayed(..))));
        assert!(
            matches!(call_log.turn(CallEffect::Change, CREATE, &arguments), Ok(Turn::Live(_))),
            "the second step is another one"
        );
    }
}
