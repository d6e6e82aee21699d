//! The state of a log: the entries that are still to be replayed, and the calls that were made so far.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call_spec::CallEffect;
use super::types::{Answer, CallRequest, LogPosition, Lookup, json};
use modhost_core::import::{Import, RecordedImport};
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::journal::Call;

/// Maximum number of entries in the log of a delivery.
const MAX_ENTRIES: u32 = 20_000;

#[derive(Default)]
pub(super) struct LogState {
    /// The calls that are still to be replayed, in order.
    pub(super) ahead: VecDeque<Entry>,
    /// The clock readings that are still to be replayed, in order.
    pub(super) readings_ahead: VecDeque<u64>,
    /// The results of calls that are not replayed.
    pub(super) kept_aside: Vec<Kept>,
    /// Whether nothing is replayed.
    pub(super) afresh: bool,
    /// The number of the next entry.
    pub(super) next: u32,
    /// Clock readings that are not written yet.
    pub(super) readings: Vec<u64>,
    /// The size of the log in bytes.
    pub(super) bytes: u64,
    /// The number of calls that were in flight when the previous attempt ended, and are made again.
    pub(super) again: u32,
    /// The calls of this attempt that failed and may succeed another time.
    pub(super) failed: Vec<(LogPosition, Import, Vec<u8>)>,
    /// The calls that were made in a dry run, in order.
    pub(super) asked: Vec<CallRequest>,
    /// Answers the calls of a dry run that the log doesn't have.
    pub(super) answering: Option<Answering>,
    /// Whether the delivery belongs to another attempt now.
    pub(super) revoked: bool,
}

/// Answers calls of a dry run by their names and arguments, with an answer as the journal has it.
pub(super) type Answering = Box<dyn FnMut(Import, &Value) -> Option<Vec<u8>> + Send>;

/// A recorded call.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) at: SystemTime,
    pub(super) import: RecordedImport,
    pub(super) arguments: Vec<u8>,
    pub(super) answer: Option<Answer>,
    /// Whether its result is kept aside when the log is cut.
    pub(super) keeps_result: bool,
}

/// The result of a call that made something that can't be unmade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) import: RecordedImport,
    pub(super) arguments: Value,
    pub(super) answer: Value,
}

impl LogState {
    pub(super) fn load(&mut self, call: Call) {
        self.next = call.number + 1;
        let size = call.arguments.len() + call.answer.as_ref().map_or(0, Vec::len);
        self.bytes = self.bytes.saturating_add(size as u64);
        // An answer that this version can't parse counts as none: the call is made again.
        let answer = call.answer.and_then(|answer| serde_json::from_slice::<Answer>(&answer).ok());
        match (call.import.known(), &answer) {
            (Some(Import::Clocks), Some(Answer::Ok(readings))) => {
                self.readings_ahead.extend(serde_json::from_str::<Vec<u64>>(readings.get()).unwrap_or_default());
            }
            (Some(Import::KeptAside), Some(Answer::Ok(kept))) => {
                self.kept_aside = serde_json::from_str(kept.get()).unwrap_or_default();
            }
            (Some(Import::Clocks | Import::KeptAside), _) => {}
            _ => {
                self.asked_for_since(&call.import, answer.as_ref());
                let Call { number, import, arguments, at, .. } = call;
                self.ahead.push_back(Entry { number, at, import, arguments, answer, keeps_result: false });
            }
        }
    }

    /// Removes a result from those kept aside that the guest has asked for since: it has an entry of its own.
    fn asked_for_since(&mut self, import: &RecordedImport, answer: Option<&Answer>) {
        let Some(Answer::Ok(answer)) = answer else { return };
        if self.kept_aside.is_empty() {
            return;
        }
        let answer = json(answer);
        if let Some(index) = self.kept_aside.iter().position(|kept| kept.import == *import && kept.answer == answer) {
            self.kept_aside.remove(index);
        }
    }

    /// Returns the position of the next recorded call if it is this one, with its answer unless it has to be made.
    pub(super) fn replay(
        &mut self,
        effect: CallEffect,
        import: Import,
        arguments: &[u8],
    ) -> Option<(LogPosition, Option<Answer>)> {
        let entry = self.ahead.pop_front_if(|entry| entry.import == import && entry.arguments == arguments)?;
        let position = LogPosition { number: entry.number, begun: entry.at };
        match entry.answer {
            Some(Answer::Again) => Some((position, None)),
            Some(answer) => {
                self.remember_failure(position, import, arguments, &answer);
                Some((position, Some(answer)))
            }
            None => {
                // A call that only reads is made again at no cost.
                self.again += u32::from(effect.needs_durable_intent());
                Some((position, None))
            }
        }
    }

    pub(super) fn remember_failure(
        &mut self,
        position: LogPosition,
        import: Import,
        arguments: &[u8],
        answer: &Answer,
    ) {
        if answer.error().is_some_and(CallError::is_temporary) {
            self.failed.push((position, import, arguments.to_vec()));
        }
    }

    /// Answers a call of a dry run from the log: by the same call, else by the next one of the same function.
    pub(super) fn dry_run(
        &mut self,
        effect: CallEffect,
        import: Import,
        arguments: &[u8],
    ) -> (LogPosition, Option<Answer>) {
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let is_answer = |answer: &Answer| !matches!(answer, Answer::Again);
        let answered = |entry: &Entry| entry.import == import && entry.answer.as_ref().is_some_and(is_answer);
        // Compared as JSON: calls that come from the admin API have their fields in another order.
        let wanted = json(arguments);
        let same = self.ahead.iter().position(|entry| answered(entry) && json(&entry.arguments) == wanted);
        let found = same.or_else(|| self.ahead.iter().position(answered)).and_then(|index| self.ahead.remove(index));
        let given = match (&found, &mut self.answering) {
            (None, Some(answer)) => answer(import, &wanted),
            _ => None,
        };
        let known = match &found {
            None if given.is_some() => Lookup::Same,
            Some(_) if same.is_some() => Lookup::Same,
            Some(entry) => Lookup::Changed(json(&entry.arguments)),
            None => Lookup::Added,
        };
        let given = given.and_then(|answer| serde_json::from_slice(&answer).ok());
        let answer = found.and_then(|entry| entry.answer).or(given);
        let position = LogPosition::new(u32::try_from(self.asked.len()).unwrap_or(u32::MAX));
        self.asked.push(CallRequest {
            import,
            arguments: wanted,
            lasting: effect.is_lasting(),
            known,
            answer: answer.as_ref().and_then(Answer::to_json),
        });
        (position, answer)
    }

    /// Takes the result that was kept aside of the same call.
    pub(super) fn take_kept(&mut self, import: Import, arguments: &[u8]) -> Option<Kept> {
        if self.kept_aside.is_empty() {
            return None;
        }
        let arguments: Value = serde_json::from_slice(arguments).ok()?;
        let index = self.kept_aside.iter().position(|kept| kept.import == import && kept.arguments == arguments)?;
        Some(self.kept_aside.remove(index))
    }

    /// Returns the next position.
    ///
    /// # Errors
    ///
    /// When the log has as many entries as it may have.
    pub(super) fn next_position(&mut self) -> Result<LogPosition, CallError> {
        if self.next >= MAX_ENTRIES {
            return Err(CallError::new(ErrorKind::Invalid, format!("more than {MAX_ENTRIES} calls in one delivery")));
        }
        self.next += 1;
        Ok(LogPosition::new(self.next - 1))
    }
}
